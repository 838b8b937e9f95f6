# The page on port 7860 as user 1000, as Hugging Face Docker Spaces expect it. Runs and downloads are stored in /data.
#   docker build -t iekd .                               PyTorch for the CPU
#   docker build -t iekd --build-arg TORCH_INDEX= .      PyTorch for NVIDIA GPUs; run it with --gpus all
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
# an index of CPU builds, which are 10 times smaller; empty: the usual builds, which are for NVIDIA GPUs
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN useradd --create-home --uid 1000 iekd && install -d -o iekd /data
WORKDIR /home/iekd/app
# a layer of its own: it is by far the largest and changes least
COPY requirements.txt constraints.txt /src/
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r /src/requirements.txt -c /src/constraints.txt
COPY pyproject.toml setup.py README.md LICENSE NOTICE /src/
COPY iekd /src/iekd
COPY checkpoints /src/checkpoints
RUN pip install --no-cache-dir --no-deps /src
COPY app.py ./
USER iekd
ENV IEKD_RUNS_DIR=/data/runs IEKD_CACHE_DIR=/data/cache GRADIO_ANALYTICS_ENABLED=False
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
