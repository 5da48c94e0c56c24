"""`mv4d view`: write the page that plays a 4D object, and open it."""

import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fourd.export.splats import SUFFIX
from fourd.viewer.page import find_shown, write_page
from pipeline.cli import EXIT_OK, command_parser, parse, usage_error
from pipeline.storage import check_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = command_parser(
        "view",
        "Write one HTML page that plays a 4D object from any side, and open it. The page needs no network.",
        f"""mv4d view robot.glb
        mv4d view runs/robot                      the animated mesh and the splats of a reconstruction
        mv4d view robot{SUFFIX} --out robot.html --no_open""",
    )
    parser.add_argument("file", type=str, help=f"A .glb, a splat .ply, a *{SUFFIX}, or a folder with these.")
    parser.add_argument("--out", type=str, default="", help="The page; empty is beside the file, with its name.")
    parser.add_argument("--no_open", action="store_true", help="Only write the page.")
    options = parse(parser, arguments)
    path = Path(options.file)
    if not path.exists():
        usage_error(f"{path} does not exist")
    try:
        page = Path(options.out) if options.out else page_beside(path)
        check_folder(page.parent)
        if page.is_dir():
            usage_error(f"{page} is a folder; give the page a name: --out {page / 'view.html'}")
        size = write_page(find_shown(path), page)
    except ValueError as error:
        usage_error(str(error))
    Console().print(f"{page} ({size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
    if not options.no_open and not webbrowser.open(page.resolve().as_uri()):
        Console(stderr=True).print("no browser was found here; open the page by hand", highlight=False)
    return EXIT_OK


def page_beside(path: Path) -> Path:
    """Where the page of a file or a folder goes."""
    if path.is_dir():
        return path / "view.html"
    return path.with_name(path.name.removesuffix(SUFFIX if path.name.endswith(SUFFIX) else path.suffix) + ".html")


if __name__ == "__main__":
    sys.exit(main())
