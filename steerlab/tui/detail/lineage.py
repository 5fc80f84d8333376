"""Lineage: the parents and children of a vector, as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import Static, Tree
from textual.widgets.tree import TreeNode
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.tui.detail.pane import Pane

if TYPE_CHECKING:
    from steerlab.registry import Summary
    from steerlab.registry.lineage import Lineage as Family
    from steerlab.registry.lineage import Node

MOST = 200
"""Branches drawn per vector."""


class Lineage(Pane):
    """Enter goes to the vector under the cursor."""

    HELP = "The vectors this one was made from, and those made from it. Enter goes to one."

    DEFAULT_CSS = """
    Lineage Tree { height: auto; background: transparent; }
    """

    can_focus = False

    def compose(self) -> ComposeResult:
        """The tree, or a line if it is empty."""
        tree: Tree[str] = Tree("", id="family")
        tree.show_root = False
        tree.guide_depth = 3
        yield tree
        yield Static(classes="quiet", markup=False)

    def read(self, summary: Summary, worker: Worker[None]) -> Family:
        """Both directions."""
        return self.lab.store.lineage(summary.qualified)

    def draw(self, found: Family) -> None:
        """Draw parents and children."""
        tree = self.query_one(Tree)
        tree.clear()
        for title, nodes in (("made from", found.parents), ("used in", found.children)):
            if nodes:
                branch = tree.root.add(Text(title, style="bold"), expand=True)
                _grow(branch, nodes)
        alone = not found.parents and not found.children
        tree.display = not alone
        self.query_one(Static).update(
            "No parents and no children: no other vector was used or made." if alone else ""
        )

    @on(Tree.NodeSelected)
    def _chosen(self, event: Tree.NodeSelected[str]) -> None:
        event.stop()
        if event.node.data:
            self.post_message(self.Jump(event.node.data))


def _grow(branch: TreeNode[str], nodes: Sequence[Node]) -> None:
    for node in nodes[:MOST]:
        label = Text(printable(node.ref))
        what = node.recipe if node.stored else "not in this store"
        label.append(printable(f"  {what}{'  …' if node.cut else ''}"), "dim")
        ref = node.ref if node.stored else None
        if node.branches:
            _grow(branch.add(label, ref, expand=True), node.branches)
        else:
            branch.add_leaf(label, ref)
    if len(nodes) > MOST:
        branch.add_leaf(Text(f"and {len(nodes) - MOST} more", style="dim"))
