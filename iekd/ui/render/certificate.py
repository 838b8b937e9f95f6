"""The certificate of an export as HTML."""

from __future__ import annotations

from html import escape

from iekd.export import Certificate


def certificate_html(certificate: Certificate, link: str = "") -> str:
    """Its table, below what should be known first. link: HTML of the download."""
    told = "".join(f'<p class="warn">{escape(said)}</p>' for said in certificate.warnings)
    told += "".join(f'<p class="warn">Not checked: {escape(said)}</p>' for said in certificate.not_checked)
    rows = "".join(f'<tr><th scope="row">{escape(what)}</th><td>{escape(found)}</td></tr>'
                   for what, found in certificate.rows())  # fmt: skip
    note = "Latency: one picture at a time on one CPU thread of this machine, median (lower to upper quartile)."
    return (
        f'<div class="card">{told}<div class="scroll"><table class="results">{rows}</table></div>'
        f'<p class="sub">{note}</p><p class="downloads">{link}</p></div>'
    )
