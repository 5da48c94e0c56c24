"""Every reason for which an input can be turned away: what it means and what to do about it.

The keys are what tables count, so they are stable; the words may change.
"""

REASONS: dict[str, tuple[str, str]] = {
    # ingest: the licence
    "licence_unknown": (
        "no licence was stated, or it is not an SPDX id we know",
        "add an `spdx` column to the manifest, or a licence file beside the asset",
    ),
    "licence_not_allowed": (
        "the licence is known, and the policy does not admit it",
        "choose another --policy, or pass --policy custom --allow SPDX",
    ),
    "noai": ("the author opted out of use by generative AI", "leave it out; the opt-out is honoured by default"),
    # ingest: the bytes
    "not_found": ("the file or URL does not exist", "check the path or the URL; 404 and 410 are final"),
    "fetch_failed": (
        "the download failed after every retry",
        "run again later; see the detail for the last error",
    ),
    "login_needed": (
        "the server wants a login, or blocks us",
        "for Sketchfab set SKETCHFAB_TOKEN, then --retry-rejected login_needed; else fetch it by hand",
    ),
    "private_address": (
        "the URL leads to this machine or into a private network",
        "pass --fetch.allow_private true if the list is your own",
    ),
    "too_large": ("the file is over the size limit", "raise --max_bytes if this is meant"),
    "empty_file": ("the file has zero bytes", "fetch it again from its source"),
    "not_an_asset": (
        "the content is not a 3D file (an HTML page, say)",
        "look for a login wall or an error page behind the URL",
    ),
    "unsupported_format": ("no importer reads this kind of file", "convert it to .glb"),
    "unsupported_extension": (
        "the glTF requires an extension that Blender cannot read",
        "re-export without it, for example with `gltf-transform`",
    ),
    "unsupported_version": (
        "a newer Blender saved this .blend than the one that reads it",
        "name a newer one with --blender.blender_python, or export the file to .glb",
    ),
    "truncated": ("the file ends before its own header says it should", "fetch it again from its source"),
    "malformed": ("the file breaks its format's rules", "validate it, for example with the glTF validator"),
    "non_finite": (
        "NaN or infinite numbers in geometry or animation",
        "repair the asset; such vertices cannot be drawn",
    ),
    "unsafe_uri": ("the file refers to something outside its own folder", "pack the asset into one file (.glb)"),
    "missing_file": (
        "another file that it needs is absent",
        "keep the files that belong together in one folder, or pack them into one (.glb)",
    ),
    "wrong_count": (
        "views or frames are not as many, or not of one size, as their data set's layout says",
        "unpack the data set again; see the detail for what was found",
    ),
    "image_bomb": ("a texture would decode to an absurd size", "resize the texture"),
    "absurd_duration": (
        "an animation lasts longer than the limit",
        "check the key times' unit, or raise --limits.max_duration_s (glTF) or --max_duration_s",
    ),
    "too_complex": (
        "more vertices, nodes or actions than the limits allow",
        "raise the limit if the machine can bear it",
    ),
    "checksum_mismatch": (
        "the bytes differ from the sha256 the source promised",
        "the source changed: fetch a fresh list",
    ),
    "duplicate_bytes": ("the same bytes came earlier in the input", "nothing to do; the first one is used"),
    "no_animation": ("the file has no animation", "nothing to do; mv4d wants moving assets"),
    "no_mesh": ("the file has nothing to draw", "nothing to do"),
    # render: Blender
    "import_failed": ("Blender could not read the file", "open it in Blender by hand and see the detail"),
    "blender_crashed": ("Blender died on it", "see the detail for its last words; report it with the asset"),
    "deadline": ("it took longer than the deadline of its phase", "raise the deadline if the asset is worth it"),
    "out_of_memory": (
        "it needed more memory than the limit, even with small textures",
        "raise --blender.memory_mb, or simplify the asset",
    ),
    "disk_quota": (
        "it wrote more temporary files than the limit",
        "raise --blender.scratch_mb if the pictures are that large",
    ),
    "machine_fault": (
        "the machine failed on it after every retry",
        "run again; see the detail for the last error",
    ),
    # render: the plan's gate, before a pixel is paid for
    "too_still": ("hardly any vertex moves", "lower the motion threshold if stillness is wanted"),
    "rigid_only": ("the whole object turns or slides as one piece", "allow it with --gate.allow_rigid true"),
    "leaves_frame": ("it travels so far that the object would be a speck", "raise --gate.max_travel"),
    "teleport": ("it jumps from one frame to the next", "raise --gate.max_jump"),
    "distorted": ("its surface is torn or blown up by the animation", "raise --gate.max_stretch"),
    "too_short": ("the animation has no length", "nothing to do"),
    "duplicate_animation": (
        "the same motion of the same mesh came earlier",
        "nothing to do; the first one is used",
    ),
    "not_drawn": (
        "the asset has more animations than the cap, and the seed drew others",
        "raise --max_animations",
    ),
    # render: ground truth
    "no_such_truth": (
        "this pass cannot be made for this clip: its vertices come and go, or it has one view only",
        "nothing to do; the other passes are there",
    ),
    # caption
    "no_words": ("the model that was asked for a caption said nothing", "ask another, or with another --prompt"),
    # curate: judgements of rendered clips
    "blank": ("hardly anything can be seen", "look at the clip: materials or scale"),
    "out_of_frame": ("the object touches the image border", "look at the clip: framing"),
    "flat": ("the picture has no texture or shading", "look at the clip: materials or lights"),
    "drastic": ("the picture changes too much between frames", "look at the clip"),
    "duplicate_look": ("it looks and moves like an earlier clip", "nothing to do; the first one is used"),
    "moves_too_much": ("the motion score is above the preset's range", "choose another preset"),
    "revoked": ("it was taken down", "nothing to do"),
}
"""reason: (what it means, what to do)."""


def explain(reason: str) -> str:
    """One line: what the reason means and what to do.

    Raises:
        KeyError: The reason is not listed.
    """
    meaning, advice = REASONS[reason]
    return f"{meaning}; {advice}"
