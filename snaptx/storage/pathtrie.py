"""Where paths end up when names move while they are being mentioned.

``btrfs send`` tells how to make the new tree from the old one as a sequence of
steps; every path is the one of its moment.  The trie holds the mentioned paths
alone and repeats what the steps do to names.  Each node knows two places:

    current   parent and name, moved by every rename together with all below
    origin    the parent node and name under which it was first met, if it was
              there before the first step; following the origins upwards gives
              its path in the old tree, whatever has been moved since

So a node found by its name of the moment yields its path in both trees.  A
temporary name is left again and was never an origin: it is in neither.
"""

from __future__ import annotations

from collections.abc import Iterator


class Node:
    """One mentioned name, or a directory on the way to one."""

    __slots__ = ("children", "gone", "made", "modified", "name", "origin", "origin_name", "parent", "touched")

    def __init__(self, parent: Node | None, name: bytes, origin: Node | None) -> None:
        self.parent = parent
        self.name = name
        self.origin = origin
        self.origin_name = name
        self.children: dict[bytes, Node] | None = None
        self.touched = False
        self.gone = False
        self.made = False
        self.modified = False

    def child(self, name: bytes, *, fresh: bool = False) -> Node:
        """Return the child ``name``; ``fresh`` says that the name was free before this mention."""
        if self.children is None:
            self.children = {}
        found = self.children.get(name)
        if found is None:
            known = self.origin is not None and not fresh
            found = self.children[name] = Node(self, name, self if known else None)
        return found


class Trie:
    """The mentioned paths of a stream, current and original."""

    def __init__(self) -> None:
        self._root = Node(None, b"", None)
        self._root.origin = self._root
        self._displaced: list[Node] = []

    def _reach(self, path: bytes, *, fresh: bool = False) -> Node:
        if not path:
            return self._root
        node = self._root
        *above, name = path.split(b"/")
        for part in above:
            node = node.child(part)
        return node.child(name, fresh=fresh)

    def modify(self, path: bytes) -> None:
        """Note that the inode at ``path`` is given other data or metadata."""
        node = self._reach(path)
        node.touched = node.modified = True
        node.gone = False

    def make(self, path: bytes) -> None:
        """Note that a new inode appears at ``path``."""
        node = self._reach(path, fresh=True)
        node.touched = node.made = True
        node.gone = node.modified = False

    def link(self, path: bytes) -> None:
        """Note that an inode gets the further name ``path``."""
        node = self._reach(path, fresh=True)
        node.touched = True
        node.gone = node.made = node.modified = False

    def remove(self, path: bytes) -> None:
        """Note that the name ``path`` goes away."""
        node = self._reach(path)
        node.touched = node.gone = True

    def move(self, path: bytes, target: bytes) -> None:
        """Note that ``path`` becomes ``target``, with all below it."""
        node = self._reach(path)
        above, _, name = target.rpartition(b"/")
        if node.parent is None or node.parent.children is None or not name:
            raise ValueError("the root cannot be moved")
        del node.parent.children[node.name]
        parent = self._reach(above)
        if parent.children is None:
            parent.children = {}
        if name in parent.children:
            self._displaced.append(parent.children[name])
        parent.children[name] = node
        node.parent, node.name = parent, name
        node.touched = True
        node.gone = False

    def _live(self) -> Iterator[tuple[Node, bytes]]:
        stack = [(self._root, b"")]
        while stack:
            node, path = stack.pop()
            yield node, path
            if node.children:
                prefix = path + b"/" if path else b""
                stack.extend((child, prefix + name) for name, child in node.children.items())

    def _dead(self) -> Iterator[Node]:
        stack = list(self._displaced)
        while stack:
            node = stack.pop()
            yield node
            if node.children:
                stack.extend(node.children.values())

    def paths(self) -> Iterator[bytes]:
        """Yield every touched path of the old and of the new tree, some twice; b"" is the root."""
        for node, path in self._live():
            if not node.touched:
                continue
            if not node.gone:
                yield path
            if node.origin is not None:
                yield _original(node)
        for node in self._dead():
            if node.touched and node.origin is not None:
                yield _original(node)

    def modified(self) -> Iterator[bytes]:
        """Yield the new path of each touched inode that is older than the stream."""
        for node, path in self._live():
            if node.modified and not node.made and not node.gone:
                yield path


def _original(node: Node) -> bytes:
    parts: list[bytes] = []
    while node.parent is not None and node.origin is not None:
        parts.append(node.origin_name)
        node = node.origin
    return b"/".join(reversed(parts))
