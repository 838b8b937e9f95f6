"""The page. Tabs call runs, compare and plan; nothing here trains, and nothing here imports torch by itself."""

import os

import iekd.hub  # noqa: F401 - switches the Hub's telemetry off before gradio imports huggingface_hub

# gradio reads it when it is imported; who wants the statistics of use to be sent sets it to True
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
