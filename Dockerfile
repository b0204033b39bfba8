# thriftvid on the CPU:
#   docker build --tag thriftvid .
#   docker run --rm --volume "$PWD:/data" --user "$(id -u):$(id -g)" thriftvid batch-extract VIDEOS --cache CACHE …
FROM python:3.12-slim AS build
WORKDIR /source
RUN python -m venv /venv
# PyTorch's packages for the CPU, which need none of CUDA's.
COPY setup.cfg pyproject.toml DESCRIPTION.md LICENSE ./
COPY cache_schema cache_schema
COPY extract extract
COPY policy policy
RUN /venv/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu .

FROM python:3.12-slim
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH
RUN useradd --create-home --uid 1000 thriftvid
USER 1000
WORKDIR /data
CMD ["train-policy", "--help"]
