"""How Sphinx makes the site (tools/docs)."""

project = "Bulkhead"
author = "the Bulkhead authors"
project_copyright = "2026, the Bulkhead authors"

extensions = ["myst_parser", "sphinx_antsibull_ext"]
root_doc = "index"
include_patterns = [
    *("index.md", "ansible.md", "README.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("docs/**", "roles/*/README.md", "lab/README.md", "reference/**"),
]

html_title = project
html_theme = "alabaster"
html_show_sourcelink = False

# Links to a heading of another page, as the tree's pages have them.
myst_heading_anchors = 4
