"""The certificate of an export as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from iekd.config.methods import method_name
from iekd.export import Certificate
from iekd.export.certificate import size
from iekd.language import N_, _
from iekd.ui.render.template import html_text
from iekd.ui.render.words import teacher_title

COLUMNS = N_("File"), N_("Accuracy"), N_("Difference")


def certificate_html(certificate: Certificate, link: str = "") -> str:
    """Its table, below what should be known first. link: HTML of the download."""
    rows = "".join(f'<tr><th scope="row">{escape(what)}</th><td>{escape(found)}</td></tr>'
                   for what, found in certificate.rows())  # fmt: skip
    note = html_text(
        "Latency: one image at a time on one CPU thread of this machine, median (lower to upper quartile)."
    )
    return _card([certificate], rows, note, link)


def page_html(certificates: Sequence[Certificate], note: str, link: str = "") -> str:
    """What was found of each network of an exported page. note: what should be known of the page, as HTML."""
    columns = [escape(_(column)) for column in COLUMNS]
    rows = f"<tr><th>{html_text('Model')}</th>{''.join(f'<th>{column}</th>' for column in columns)}</tr>"
    for found in certificates:
        title = teacher_title() if found.role == "teacher" else method_name(found.method)
        accuracy = _("not measured") if found.accuracy is None else f"{found.accuracy:.2f} %"
        cells = zip(columns, (size(found.bytes), accuracy, f"{found.difference:.1e}"), strict=True)
        body = "".join(f'<td data-label="{column}">{text}</td>' for column, text in cells)
        rows += f'<tr><th scope="row">{escape(title)}</th>{body}</tr>'
    words = html_text(
        "Accuracy: of the file, on the test images. Difference: the largest of any probability from the original's."
    )
    return _card(certificates, rows, f"{words} {note}", link)


def _card(certificates: Sequence[Certificate], rows: str, note: str, link: str) -> str:
    told = [said for found in certificates for said in found.warnings]
    told += [_("Not checked: {what}", what=said) for found in certificates for said in found.not_checked]
    warnings = "".join(f'<p class="warn">{escape(said)}</p>' for said in dict.fromkeys(told))
    return (
        f'<div class="card">{warnings}<div class="scroll"><table class="results">{rows}</table></div>'
        f'<p class="sub">{note}</p><p class="downloads">{link}</p></div>'
    )
