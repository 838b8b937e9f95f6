"""What the tabs and the endpoints share: actions on runs, the shapes of answers, and patches of Gradio."""
