# Stand-in for postgres:17 if no registry has it; see tests/images/make.
FROM scratch
ADD root.tar /
ENV LANG=C.UTF-8
ENV PGDATA=/var/lib/postgresql/data
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/17/bin
VOLUME /var/lib/postgresql/data
EXPOSE 5432
# PostgreSQL's fast shutdown, which closes the sessions.
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
