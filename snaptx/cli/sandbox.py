"""``snaptx sandbox``: make, restart and remove a machine to try snaptx on."""

from __future__ import annotations

import argparse
import shlex

from snaptx import log
from snaptx.cli import common, options
from snaptx.sandbox.layout import Layout, Sandbox, parse_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a Btrfs image and mount its root as if it had booted")
    options.add_globals(create, inherited=True)
    create.add_argument("directory", metavar="DIR", type=options.path, help="a new or empty directory")
    create.add_argument("--size", default="4G", help="size of the image, sparse (default: %(default)s)")
    create.add_argument(
        "--from",
        dest="tree",
        metavar="TREE|TAR",
        type=options.path,
        help="fill the root with this (default: a skeleton)",
    )
    names = [layout.value for layout in Layout]
    create.add_argument(
        "--layout", choices=names, default=names[0], help="whose subvolumes to imitate (default: %(default)s)"
    )
    destroy = actions.add_parser("destroy", help="unmount and remove a sandbox")
    options.add_globals(destroy, inherited=True)
    destroy.add_argument("directory", metavar="DIR", type=options.path, help="the sandbox")
    reboot = actions.add_parser("reboot", help="mount as root what the entry file names, as a restart does")
    options.add_globals(reboot, inherited=True)
    reboot.add_argument("directory", metavar="DIR", type=options.path, help="the sandbox")
    reboot.add_argument("--target", metavar="SUBVOLUME", help="boot this subvolume, as from GRUB's menu")


def run(args: argparse.Namespace) -> int:
    """Do the action and return the exit status."""
    from snaptx.sandbox import box

    if args.dry_run:
        return _rehearse(args)
    match args.action:
        case "create":
            size, layout = parse_size(args.size), Layout(args.layout)
            made = box.create(args.directory, size=size, source=args.tree, layout=layout)
            _show_created(made, args)
        case "destroy":
            left = box.destroy(args.directory)
            if left:
                log.say(f"left in {args.directory}, not the sandbox's: {', '.join(left)}")
            common.emit(args, {"destroyed": str(args.directory), "left": left}, ())
        case _:
            booted = box.reboot(args.directory, target=args.target)
            common.emit(args, {"subvolume": booted}, booted or "the top level")
    return 0


def _rehearse(args: argparse.Namespace) -> int:
    from snaptx.sandbox import box

    if args.action == "create":
        size, layout = parse_size(args.size), Layout(args.layout)
        box.foresee(args.directory, size=size, source=args.tree, layout=layout)
    else:
        found = box.find(args.directory)
        if args.action == "reboot" and found.top.is_mount():
            box.choose(found, args.target)
    would = {"action": args.action, "directory": str(args.directory)}
    common.emit(args, {"would": would}, f"would {args.action} the sandbox {args.directory}")
    return 0


def _show_created(box: Sandbox, args: argparse.Namespace) -> None:
    places = {"directory": box.directory, "root": box.root, "top": box.top, "image": box.disk}
    root = shlex.quote(str(args.directory / "root"))
    text = f"a sandbox laid out as {box.layout} has it; try: snaptx --sysroot {root} init"
    common.emit(args, {"layout": box.layout} | {name: str(path) for name, path in places.items()}, text)
