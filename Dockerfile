# metacurate with what needs no GPU; docs/orchestration.md shows how it is built and run.
FROM python:3.13-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
# Without "ray" and "train": --build-arg EXTRAS=all has them too.
ARG EXTRAS=crawl,hf,http,images,languages,metadata,report,s3,worldwide
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[${EXTRAS}]" && rm -r /wheels \
    && mkdir --mode=1777 /cache /data
# Compiled kernels go here: they fit the machine that runs the image, not the one that built it.
ENV NUMBA_CACHE_DIR=/cache MPLCONFIGDIR=/cache/matplotlib
VOLUME /cache
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["metacurate"]
CMD ["--help"]
