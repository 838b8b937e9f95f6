"""The methods' colours as CSS: one class per method, which figures and lists name (words.method_style)."""

from iekd.config.methods import METHODS


def method_colours() -> str:
    """Rules for the page's style sheet: a variable per method in a light and a dark tone, and a class that takes it."""
    light, dark = (" ".join(f"--m-{name}: {spec.colour[i]};" for name, spec in METHODS.items()) for i in (0, 1))
    classes = " ".join(f".{name} {{ --c: var(--m-{name}); }}" for name in METHODS)
    return f":root {{ {light} }}\n.dark {{ {dark} }}\n{classes}\n"
