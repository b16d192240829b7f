"""Code blocks of the pages. One that cannot run here says so in a comment above it, `<!-- not run: why -->`."""

import re


def python_blocks(text, run=True):
    """The blocks of a page's text that are to run, or those that are not."""
    blocks = re.findall(r"(<!-- not run: [^>]+ -->\n\n)?```python\n(.*?)```", text, flags=re.DOTALL)
    return [code for mark, code in blocks if bool(mark) != run]
