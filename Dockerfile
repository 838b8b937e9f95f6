# The page on port 7860, as Hugging Face Docker Spaces expect it (user 1000). Runs and downloads live in /data.
FROM python:3.12-slim
RUN useradd --create-home --uid 1000 iekd && install -d -o iekd /data
WORKDIR /home/iekd/app
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt -c constraints.txt
COPY --chown=iekd . .
USER iekd
ENV IEKD_RUNS_DIR=/data/runs IEKD_CACHE_DIR=/data/cache GRADIO_ANALYTICS_ENABLED=False
VOLUME /data
EXPOSE 7860
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
