# The book in a container, with the environment of requirements.lock:
#   docker build --tag hqnn-book . && docker run --rm --publish 127.0.0.1:8888:8888 hqnn-book
# The second command says at which address JupyterLab then has the chapters.
FROM python:3.12-slim-bookworm
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home reader && install --directory --owner reader /book
USER reader
WORKDIR /book
COPY --chown=reader . .
RUN make setup
CMD ["make", "lab", "ARGS=--ip=0.0.0.0 --no-browser"]
