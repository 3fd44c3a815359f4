//! `deploy/roles.sql`: once is enough, before the migrations or after them, and each role gets what is its own.

use harvest_sim::{Company, Options, Sim};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;

use crate::cluster::Cluster;
use crate::program::Program;

const ROLES: &str = include_str!("../../deploy/roles.sql");
/// The schemas that are rosterd's.
const OURS: &str = "('roster', 'directory', 'rosterd_internal')";

/// A database on a server of the test's own, since roles are the server's.
struct Place<'c> {
    cluster: &'c Cluster,
    database: &'static str,
}

impl Place<'_> {
    fn url(&self, user: Option<&str>) -> String {
        let mut url = Url::parse(self.cluster.url()).unwrap();
        url.set_path(self.database);
        if let Some(user) = user {
            url.set_username(user).unwrap();
            url.set_password(Some("secret")).unwrap();
        }
        url.into()
    }

    async fn run_roles(&self, user: Option<&str>) {
        self.try_as(user, ROLES).await.unwrap();
    }

    async fn try_as(&self, user: Option<&str>, statements: &str) -> sqlx::Result<()> {
        let mut connection = PgConnection::connect(&self.url(user)).await?;
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.map(drop)
    }

    /// Whether the login may; any other answer than yes or a refusal is a mistake of the test's.
    async fn may(&self, user: &str, statement: &str) -> bool {
        match self.try_as(Some(user), statement).await {
            Ok(()) => true,
            Err(error) => {
                let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
                assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
                false
            }
        }
    }

    async fn names(&self, query: &str) -> Vec<String> {
        let mut connection = PgConnection::connect(&self.url(None)).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_all(&mut connection).await.unwrap()
    }

    /// All rights that anybody was given, as the catalogue has them.
    async fn rights(&self) -> Vec<String> {
        let query = format!(
            "SELECT concat_ws(' ', nspname, relname, relowner::regrole, relacl) FROM pg_class
               JOIN pg_namespace AS space ON space.oid = relnamespace WHERE nspname IN {OURS}
             UNION ALL SELECT concat_ws(' ', nspname, pg_proc.oid::regprocedure, proowner::regrole, proacl) FROM pg_proc
               JOIN pg_namespace AS space ON space.oid = pronamespace WHERE nspname IN {OURS}
             UNION ALL SELECT concat_ws(' ', nspname, nspowner::regrole, nspacl) FROM pg_namespace
             UNION ALL SELECT concat_ws(' ', defaclrole, defaclnamespace, defaclobjtype, defaclacl) FROM pg_default_acl
             UNION ALL SELECT concat_ws(' ', roleid::regrole, member::regrole) FROM pg_auth_members
             ORDER BY 1"
        );
        self.names(&query).await
    }
}

async fn sim() -> Sim {
    Sim::start(Company::seeded(5, 20, 40), Options::default()).await.unwrap()
}

/// A server with two databases: one whose owner may make roles, one of a superuser's; and logins, one a role.
async fn server() -> Cluster {
    let cluster = Cluster::new().await;
    cluster.execute("CREATE ROLE owner LOGIN CREATEROLE PASSWORD 'secret'").await;
    cluster.execute("CREATE DATABASE theirs OWNER owner").await;
    cluster.execute("CREATE DATABASE ours").await;
    cluster
}

const LOGINS: &str = "CREATE ROLE daemon LOGIN PASSWORD 'secret' IN ROLE rosterd_writer;
                      ALTER ROLE daemon SET role = rosterd_writer;
                      CREATE ROLE reader LOGIN PASSWORD 'secret' IN ROLE roster_reader;
                      CREATE ROLE consumer LOGIN PASSWORD 'secret' IN ROLE roster_consumer;
                      CREATE ROLE auditor LOGIN PASSWORD 'secret' IN ROLE roster_auditor;
                      CREATE ROLE stranger LOGIN PASSWORD 'secret'";

#[tokio::test]
async fn roles_run_once_before_the_first_migration_give_each_role_its_rights() {
    let (cluster, sim) = (server().await, sim().await);
    let place = Place { cluster: &cluster, database: "theirs" };
    place.run_roles(Some("owner")).await;
    cluster.execute(LOGINS).await;

    let program = Program::new(&sim, &place.url(Some("daemon")));
    program.call(&["migrate"]).await.expect(0);
    program.call(&["check"]).await.expect(0);
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    program.call(&["sync", "--full"]).await.expect(0);
    program.call(&["status"]).await.expect(0);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
    program.call(&["verify"]).await.expect(0);
    let others = format!(
        "SELECT relname::text FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
          WHERE nspname IN {OURS} AND relowner <> 'rosterd_writer'::regrole"
    );
    assert_eq!(place.names(&others).await, [""; 0], "every login of the role owns them");

    let rights = place.rights().await;
    place.run_roles(Some("owner")).await;
    assert_eq!(place.rights().await, rights, "a second run changes nothing");

    let callable = format!(
        "SELECT concat_ws(' ', pg_proc.oid::regprocedure, provolatile) FROM pg_proc
           JOIN pg_namespace AS space ON space.oid = pronamespace
          WHERE nspname IN {OURS} AND has_function_privilege('auditor', pg_proc.oid, 'EXECUTE') ORDER BY 1"
    );
    let reads_only = ["assignments_as_of", "users_as_of"]
        .map(|name| format!("directory.{name}(timestamp with time zone) s"));
    assert_eq!(
        place.names(&callable).await,
        reads_only,
        "an auditor calls functions that read, and no other"
    );

    // A consumer is moved by whoever registered it, and the past is an auditor's question too.
    for (user, statement, may) in [
        ("consumer", "SELECT FROM roster.outbox_fetch('payroll', 1)", true),
        ("reader", "SELECT directory.outbox_ack('payroll', 1)", false),
        ("reader", "SELECT directory.outbox_start('payroll', 1)", false),
        ("consumer", "SELECT roster.outbox_ack('payroll', 1)", true),
        ("reader", "SELECT FROM directory.outbox_fetch('bi', 1)", true),
        ("auditor", "SELECT FROM directory.users_as_of(now())", true),
        ("stranger", "SELECT FROM directory.users_as_of(now())", false),
    ] {
        assert_eq!(place.may(user, statement).await, may, "{user}: {statement}");
    }

    // What a later migration brings.
    place
        .try_as(
            Some("daemon"),
            "CREATE TABLE roster.later (pay numeric);
             CREATE VIEW directory.later AS SELECT id FROM roster.users;
             CREATE FUNCTION directory.follow() RETURNS bigint LANGUAGE sql SECURITY DEFINER
                 SET search_path = pg_catalog AS 'SELECT count(*) FROM roster.outbox'",
        )
        .await
        .unwrap();
    let tables = format!(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN {OURS} ORDER BY 1"
    );
    let tables = place.names(&tables).await;
    assert!(tables.len() > 10 && tables.contains(&"roster.credentials".to_owned()), "{tables:?}");
    for table in &tables {
        let read = format!("SELECT FROM {table}");
        assert_eq!(place.may("auditor", &read).await, table != "roster.budget_salt", "{table}");
        let is_outbox = ["roster.consumers", "roster.outbox", "roster.outbox_head"].contains(&table.as_str());
        assert_eq!(place.may("consumer", &read).await, is_outbox, "{table}");
        for nobody in ["reader", "stranger"] {
            assert!(!place.may(nobody, &read).await, "{nobody} reads {table}");
        }
        for (user, change) in ["auditor", "consumer", "reader"]
            .into_iter()
            .flat_map(|user| ["DELETE FROM", "TRUNCATE", "DROP TABLE"].map(|change| (user, change)))
        {
            assert!(!place.may(user, &format!("{change} {table}")).await, "{user}: {change} {table}");
        }
    }
    for (user, sees) in [("reader", true), ("consumer", true), ("auditor", true), ("stranger", false)] {
        assert_eq!(place.may(user, "SELECT FROM directory.later").await, sees, "{user}");
        let follows = sees && user != "auditor";
        assert_eq!(place.may(user, "SELECT directory.follow()").await, follows, "{user}");
        for schema in ["roster", "directory", "rosterd_internal", "public"] {
            assert!(!place.may(user, &format!("CREATE TABLE {schema}.mine ()")).await, "{user} in {schema}");
        }
    }
}

#[tokio::test]
async fn what_a_superuser_s_daemon_has_left_becomes_the_writers() {
    let (cluster, sim) = (server().await, sim().await);
    let place = Place { cluster: &cluster, database: "ours" };
    let before = Program::new(&sim, &place.url(None));
    before.call(&["sync"]).await.expect(0);
    place.run_roles(None).await;
    cluster.execute(LOGINS).await;
    let program = Program::new(&sim, &place.url(Some("daemon")));
    program.call(&["check"]).await.expect(0);
    sim.hire("Ona", "Writer");
    assert!(program.call(&["sync"]).await.expect(0).stdout().contains("1 event"));
    assert!(place.may("auditor", "SELECT FROM roster.users").await);
    assert!(place.may("consumer", "SELECT FROM roster.outbox").await);
    assert!(!place.may("reader", "SELECT FROM roster.users").await);
}
