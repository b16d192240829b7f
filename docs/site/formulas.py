"""MkDocs hook: formulas become MathML when the site is built, so that a page needs neither script nor network to show them.

GitHub's four forms are read: a block ``math``, ``$$…$$``, ``$…$`` and ``$`…`$``.
"""

import html
import re

from latex2mathml.converter import convert


BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
IN_CODE = re.compile(r"\$<code>(.*?)</code>\$", re.DOTALL)
TAG = re.compile(r"\\tag\{(\w+)\}")


def block(match):
    formula = html.unescape(match[1])
    tags = [f'<span class="tag">({tag})</span>' for tag in TAG.findall(formula)]
    return f'<div class="formula">{convert(TAG.sub("", formula).strip(), display="block")}{"".join(tags)}</div>'


def inline(match):
    return convert(html.unescape(match[1]).strip())


def on_page_content(content, page, config, files):
    content = BLOCK.sub(block, content)
    return IN_CODE.sub(inline, INLINE.sub(inline, content))
