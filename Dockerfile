# docker build --tag lit-fm .                                     torch for CPUs alone
# docker build --tag lit-fm:cuda --build-arg TORCH=cu130 .        for GPUs: cpu, cu126, cu130, rocm7.1, ... (uv's --torch-backend)
# docker run --rm --volume "$PWD/runs:/app/runs" lit-fm fit --config lora.yaml
# Tokens are handed over when it runs (--env HF_TOKEN), never when it is built. The user has the number 1000.

FROM python:3.11-bookworm AS dev
RUN useradd --create-home --shell /bin/bash --uid 1000 lit
USER lit

FROM python:3.11-slim-bookworm AS run
ARG TORCH=cpu
RUN pip install --no-cache-dir uv==0.13.9 && useradd --create-home --uid 1000 lit && install --directory --owner lit /app
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY lit_fm lit_fm
COPY configs configs
COPY zoo zoo
RUN uv pip install --system --no-cache --torch-backend "$TORCH" --constraints constraints.txt .
USER lit
WORKDIR /app
ENTRYPOINT ["python", "-m", "lit_fm"]
CMD ["--help"]
