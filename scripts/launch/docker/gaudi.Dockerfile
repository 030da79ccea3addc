# Everything for Gaudi cards; torch, habana_frameworks and OpenSSH are Habana's, the driver is the machine's:
#   docker build -f scripts/launch/docker/gaudi.Dockerfile -t registry.example/bert_pytorch:0.1.0-gaudi .
# The release must fit the driver of your machines: --build-arg BASE=… (docs.habana.ai, "Support Matrix"; Python 3.11 or 3.12).
ARG BASE=vault.habana.ai/gaudi-docker/1.24.0/ubuntu24.04/habanalabs/pytorch-installer-2.10.0:1.24.0-1007
FROM ${BASE}

RUN useradd --uid 10001 --create-home bert && ln -s "$(command -v python3)" /usr/local/bin/python

WORKDIR /opt/bert_pytorch
COPY requirements.txt requirements-extras.txt ./
RUN python -m pip install --no-cache-dir -r requirements.txt -r requirements-extras.txt

COPY scripts/launch/docker/ssh_config /etc/ssh/ssh_config.d/bert_pytorch.conf
COPY scripts/launch/docker/sshd_config /etc/ssh/bert_pytorch_sshd_config
COPY . .

# PYTHON: scripts/*.sh take it as it is.  PYTHONPATH has folders of Habana's already.
ENV PYTHON=/usr/local/bin/python \
    PYTHONPATH=/opt/bert_pytorch:${PYTHONPATH} \
    PYTHONUNBUFFERED=1
USER 10001
CMD ["python", "-m", "bert_pytorch"]
