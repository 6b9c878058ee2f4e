"""Settings of the documentation site, which `make docs` builds with Sphinx."""

from __future__ import annotations

import ast
from pathlib import Path

from docutils.nodes import Element, Node
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

import ftc

project = "ftc"
author = "The ftc authors"
copyright = f"2026, {author}"
release = version = ftc.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_generate"]

# Headings are link targets, by the names that code hosts give them.
myst_heading_anchors = 4
nb_execution_mode = "off"

# In docstrings a single backtick names an object of Python.
default_role = "py:obj"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "model_config"}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True

# Types are linked where they have a place here. A name in a docstring is in the code, or another library's.
_NAMES = {
    name
    for path in Path(ftc.__file__).parent.rglob("*.py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if (name := getattr(node, "name", None) or getattr(node, "id", None))
}
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", ".*"),
    ("py:obj", r"(torch|timm|lightning|attrs|safetensors|pydantic)(\..*)?"),
    ("py:obj", rf"(.*\.)?({'|'.join(sorted(_NAMES))})"),
]

html_theme = "furo"
html_title = f"ftc {release}"
html_static_path = ["_static"]
html_copy_source = False


def _by_last_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: Element) -> Node | None:
    """Link a short name to the one object that has it as its last part, as docstrings write names."""
    found = {target for target in env.domains["py"].objects if target.split(".")[-1] == node["reftarget"]}
    if node["refdomain"] != "py" or len(found) != 1:
        return None
    place = env.domains["py"].objects[found.pop()]
    return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, shown)


def setup(app: Sphinx) -> None:
    """Sphinx's hook."""
    app.connect("missing-reference", _by_last_name)
