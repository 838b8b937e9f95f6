"""What a run is asked to do: settings, names of methods, presets. Imports neither torch nor Gradio."""
