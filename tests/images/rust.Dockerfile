# Stand-in for rust:…-slim-bookworm if no registry has it; see tests/images/make.
FROM scratch
ADD root.tar /
ENV CARGO_HOME=/usr/local/cargo
ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["bash"]
