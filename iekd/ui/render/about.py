"""Fixed texts of the page: its header and the fold that explains the method."""

from iekd.config.methods import METHODS

HEADER = """
<header class="top"><svg viewBox="0 0 40 40" width="38" height="38" aria-hidden="true">
<rect class="logo-back" width="40" height="40" rx="9"/><circle class="logo-big" cx="14" cy="20" r="8.5"/>
<path class="logo-a" d="M30 14.2a5.8 5.8 0 0 1 0 11.6z" transform="rotate(180 30 20)"/>
<path class="logo-b" d="M30 14.2a5.8 5.8 0 0 1 0 11.6z"/>
</svg><div><h1>IE-KD Studio</h1><p>Shrink an image classifier: a small student learns beside a plain one,
half inheriting from its teacher, half exploring on its own.</p></div></header>
"""

HOW_IT_WORKS = """
<div class="how"><svg viewBox="0 0 420 236" role="img"
aria-label="The teacher's factor pulls one half of the student towards it and pushes the other half away">
<g class="box"><rect x="2" y="12" width="112" height="56" rx="9"/><text x="58" y="37">Teacher</text>
<text class="small" x="58" y="55">large, frozen</text></g>
<g class="box"><rect x="146" y="12" width="122" height="56" rx="9"/><text x="207" y="37">Auto-encoder</text>
<text class="small" x="207" y="55">keeps the essence</text></g>
<g class="box strong"><rect x="300" y="12" width="118" height="56" rx="9"/><text x="359" y="37">Factor</text>
<text class="small" x="359" y="55">what it knows</text></g>
<g class="box"><rect x="2" y="132" width="112" height="76" rx="9"/><text x="58" y="166">Student</text>
<text class="small" x="58" y="184">small, learning</text></g>
<g class="box inherit"><rect x="146" y="112" width="122" height="48" rx="9"/><text x="207" y="133">Inheritance</text>
<text class="small" x="207" y="150">half the channels</text></g>
<g class="box explore"><rect x="146" y="180" width="122" height="48" rx="9"/><text x="207" y="201">Exploration</text>
<text class="small" x="207" y="218">the other half</text></g>
<g class="arrow"><path d="M114 40H138"/><path class="head" d="M146 40l-9-5v10z"/><path d="M268 40H292"/>
<path class="head" d="M300 40l-9-5v10z"/><path d="M114 156L139 144"/><path class="head" d="M146 140l-10 0 4 9z"/>
<path d="M114 184L139 196"/><path class="head" d="M146 200l-6-9-4 9z"/></g>
<g class="arrow inherit"><path d="M268 136H330V78"/><path class="head" d="M330 68l-5 10h10z"/>
<text x="300" y="128">pulled</text></g>
<g class="arrow explore"><path d="M388 68V204H278"/><path class="head" d="M268 204l10-5v10z"/>
<text x="328" y="196">pushed away</text></g>
</svg>
<ol>
<li><b>Teacher.</b> A large network that already knows the images. It is frozen: it only answers.</li>
<li>
<b>Auto-encoder.</b> Squeezes the teacher's last feature into a compact <i>factor</i>, learned by rebuilding the
feature from it.</li>
<li>
<b>Students.</b> The <i>baseline</i> learns from labels alone. The <i>IE-FT</i> student has the same size, but half
of its channels
are pulled towards the teacher's factor (inheritance) and half are pushed away from it (exploration), so it does
not merely copy.</li>
<li>
<b>Evaluation.</b> All of them answer test images that none has trained on. Same images, same order, same first
weights: the
difference you see is the method.</li>
</ol>
<p class="sub">Huang et al., “Revisiting Knowledge Distillation: An Inheritance and Exploration Framework”, CVPR
2021. The other methods: PAPERS.</p></div>
""".replace(
    "PAPERS",
    "; ".join(f"{name} – {spec.paper.citation}" for name, spec in METHODS.items() if spec.paper and not spec.explores),
)
