"""The meshes and skins of a glTF: attributes that fit together, indices in range, finite numbers."""

from ingest.gltf import Gltf
from ingest.json_values import Json, as_object, broken, extension, integer, integers, numbers, objects
from ingest.refused import Refused
from ingest.scan import Scan

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_DRACO = "KHR_draco_mesh_compression"


def check_meshes(gltf: Gltf, scan: Scan) -> tuple[int, int]:
    """Vertices, those that primitives share counted once, and triangles.

    Raises:
        Refused: `malformed`, `non_finite`, `no_mesh` or `too_complex`.
    """
    positions: set[int] = set()
    num_triangles = 0
    for mesh_index, mesh in enumerate(gltf.objects("meshes")):
        numbers(mesh, "weights", f"meshes[{mesh_index}]")
        for index, primitive in enumerate(objects(mesh, "primitives", f"meshes[{mesh_index}]")):
            where = f"meshes[{mesh_index}].primitives[{index}]"
            gltf.index(primitive, "material", "materials", where)
            position = _check_attributes(gltf, as_object(primitive.get("attributes", {}), where), where, None, scan)
            for target in objects(primitive, "targets", where):
                _check_attributes(gltf, target, f"a morph target of {where}", position, scan)
            if position is not None:
                positions.add(position)
                num_triangles += _num_triangles(gltf, primitive, position, where, scan)
    if not num_triangles:
        raise Refused("no_mesh", "its meshes have no triangle")
    return sum(gltf.accessors[index].count for index in positions), num_triangles


def check_skins(gltf: Gltf, scan: Scan) -> None:
    """Check joints and inverse bind matrices.

    Raises:
        Refused: `malformed`, `non_finite` or `too_complex`.
    """
    for index, skin in enumerate(gltf.objects("skins")):
        where = f"skins[{index}]"
        joints = integers(skin, "joints", where, below=len(gltf.objects("nodes")))
        matrices = gltf.index(skin, "inverseBindMatrices", "accessors", where)
        if matrices is not None:
            if gltf.accessors[matrices].num_components != 16 or gltf.accessors[matrices].count < len(joints):
                broken(f"{where} has {len(joints)} joints, and inverse bind matrices for fewer")
            scan.check_finite(matrices, f"inverse bind matrices of {where}")


def num_morph_targets(gltf: Gltf) -> int:
    """Over all meshes; all primitives of a mesh share its targets."""
    total = 0
    for mesh in gltf.objects("meshes"):
        primitives = objects(mesh, "primitives", "a mesh")
        total += max((len(objects(primitive, "targets", "a primitive")) for primitive in primitives), default=0)
    return total


def _check_attributes(gltf: Gltf, attributes: Json, where: str, base: int | None, scan: Scan) -> int | None:
    """The accessor of the positions, if there is one. `base` is that of the mesh whose morph target this is."""
    found = {name: integer(attributes, name, where, below=len(gltf.accessors)) for name in attributes}
    position = found.get("POSITION")
    reference = position if base is None else base
    for name, index in found.items():
        count = gltf.accessors[index].count
        if reference is not None and count != gltf.accessors[reference].count:
            broken(f"{where} has {count} elements of {name[:40]} for {gltf.accessors[reference].count} positions")
        if name == "POSITION" and gltf.accessors[index].num_components != 3:
            broken(f"{where} has positions of {gltf.accessors[index].num_components} components")
        # NaN skin weights are let by: they occur in good assets, and Blender leaves such vertices finite.
        if name == "POSITION":
            scan.check_finite(index, f"positions of {where}")
    return position


def _num_triangles(gltf: Gltf, primitive: Json, position: int, where: str, scan: Scan) -> int:
    count = gltf.accessors[position].count
    draco = extension(primitive, _DRACO, where)
    if draco is not None:
        gltf.index(draco, "bufferView", "bufferViews", where)
    indices = gltf.index(primitive, "indices", "accessors", where)
    if indices is not None:
        accessor = gltf.accessors[indices]
        if accessor.is_float or accessor.num_components != 1:
            broken(f"{where} has indices that are not whole numbers")
        if draco is None:
            scan.check_below(indices, count, f"indices of {where}")
        count = accessor.count
    mode = integer(primitive, "mode", where, default=_TRIANGLES, below=7)
    return {_TRIANGLES: count // 3, _STRIP: max(0, count - 2), _FAN: max(0, count - 2)}.get(mode, 0)
