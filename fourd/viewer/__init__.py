"""One HTML page that plays a 4D object from any side: the animated mesh, the splats, or both in turn.

The page carries everything and opens from disk, without a network. Reads what `fourd.export` writes, or any GLB, or a
splat .ply. Its program is in `page/` and bundled into `viewer.min.js` by `make viewer`: docs/decisions/.
"""
