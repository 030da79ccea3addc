# Everything for NVIDIA GPUs (torch's wheels bring CUDA; the driver is the machine's) and for CPUs:
#   docker build -f scripts/launch/docker/cuda.Dockerfile -t registry.example/bert_pytorch:0.1.0-cuda .
FROM python:3.12.11-slim-bookworm

# gcc: Triton compiles its launchers.  Debian keeps one version of each package: a pinned one could not be had next month.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev openssh-client openssh-server \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
    && useradd --uid 10001 --create-home bert

WORKDIR /opt/bert_pytorch
COPY requirements.txt requirements-torch.txt requirements-extras.txt ./
RUN pip install --no-cache-dir -r requirements-torch.txt -r requirements.txt -r requirements-extras.txt

COPY scripts/launch/docker/ssh_config /etc/ssh/ssh_config.d/bert_pytorch.conf
COPY scripts/launch/docker/sshd_config /etc/ssh/bert_pytorch_sshd_config
COPY . .

# PYTHON: scripts/*.sh take it as it is.  The others are what the NVIDIA container runtime looks for outside Kubernetes.
ENV PYTHON=/usr/local/bin/python \
    PYTHONPATH=/opt/bert_pytorch \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
CMD ["python", "-m", "bert_pytorch"]
