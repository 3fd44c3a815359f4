//! The program on a machine without PostgreSQL: it downloads the server's programs from the mirror of its settings, once.

use std::io::Write;

use crate::copy;

/// Removes PostgreSQL from the copy, and serves its programs as any file of a mirror. `/given` has the program.
const MIRROR: &str = r#"
mkdir /tmp/archive
cp -rL /usr/lib/postgresql/*/bin /usr/lib/postgresql/*/lib /tmp/archive/
tar -C /tmp -czf /tmp/archive.tar.gz archive
rm -rf /usr/lib/postgresql
cat > /tmp/mirror.py <<'PYTHON'
import http.server
class Mirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open("/tmp/archive.tar.gz", "rb").read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        open("/tmp/requests", "a").write(self.path + "\n")
server = http.server.HTTPServer(("127.0.0.1", 0), Mirror)
open("/tmp/port.new", "w").write(str(server.server_port))
import os; os.rename("/tmp/port.new", "/tmp/port")
server.serve_forever()
PYTHON
python3 /tmp/mirror.py &
mirror=$!
trap 'kill $mirror' EXIT
until [ -s /tmp/port ]; do sleep 0.1; done
export ROSTERD__DATABASE__DATA_DIR=/var/tmp/private
rosterd() { /given/rosterd "$@" 2>>/tmp/log; }
"#;

/// Three starts: the settings forbid the download, then two with the mirror.
const STARTS: &str = r#"
ROSTERD__DATABASE__DOWNLOAD=false rosterd psql -- -Atc 'SELECT 1' || echo "exit code $?"
ls -d /var/tmp/private 2>/dev/null || echo 'nothing was created'
export ROSTERD__DATABASE__DOWNLOAD_URL=http://127.0.0.1:$(cat /tmp/port)
export ROSTERD__DATABASE__DOWNLOAD_SHA256=$(sha256sum /tmp/archive.tar.gz | cut -d' ' -f1)
rosterd psql -- -Atc 'CREATE TABLE kept (answer int); INSERT INTO kept VALUES (42)'
rosterd psql -- -Atc 'SELECT answer FROM kept'
wc -l < /tmp/requests
grep -c download.finished /tmp/log
"#;

#[test]
fn program_downloads_postgresql_once_and_uses_it_for_the_next_starts() {
    let needs = "ls -d /usr/lib/postgresql/*/bin && python3 --version";
    if !copy::is_possible(needs) {
        let why = "SKIPPED: needs root, the rights to mount (unshare --mount), Python, and PostgreSQL of Debian or Ubuntu";
        let _ = writeln!(std::io::stderr(), "bare machine: {why}");
        return;
    }
    let directory = std::path::Path::new(env!("CARGO_BIN_EXE_rosterd")).parent().unwrap();
    let output = copy::script(directory.to_str().unwrap(), &format!("{MIRROR}{STARTS}"));
    let expected = "exit code 78\nnothing was created\nCREATE TABLE\nINSERT 0 1\n42\n1\n1\n";
    assert_eq!(output, expected);
}
