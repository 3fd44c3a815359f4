//! `deploy/roles.sql`: one run is enough, before or after the migrations, and each role gets exactly its rights.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;

use crate::cluster::Cluster;
use crate::program::Program;
use crate::scene::small_company;

const ROLES: &str = include_str!("../../deploy/roles.sql");
const ROSTERD_SCHEMAS: &str = "('roster', 'directory', 'rosterd_internal')";

/// A database. Roles belong to the server, so that each test has its own server.
struct Database<'c> {
    cluster: &'c Cluster,
    name: &'static str,
}

impl Database<'_> {
    fn url(&self, user: Option<&str>) -> String {
        let mut url = Url::parse(self.cluster.url()).unwrap();
        url.set_path(self.name);
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

    /// Whether the login may run the statement. Any error except a missing right fails the test.
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

    /// All granted rights according to the catalogue.
    async fn rights(&self) -> Vec<String> {
        let query = format!(
            "SELECT concat_ws(' ', nspname, relname, relowner::regrole, relacl) FROM pg_class
               JOIN pg_namespace AS space ON space.oid = relnamespace WHERE nspname IN {ROSTERD_SCHEMAS}
             UNION ALL SELECT concat_ws(' ', nspname, pg_proc.oid::regprocedure, proowner::regrole, proacl) FROM pg_proc
               JOIN pg_namespace AS space ON space.oid = pronamespace WHERE nspname IN {ROSTERD_SCHEMAS}
             UNION ALL SELECT concat_ws(' ', nspname, nspowner::regrole, nspacl) FROM pg_namespace
             UNION ALL SELECT concat_ws(' ', defaclrole, defaclnamespace, defaclobjtype, defaclacl) FROM pg_default_acl
             UNION ALL SELECT concat_ws(' ', roleid::regrole, member::regrole) FROM pg_auth_members
             ORDER BY 1"
        );
        self.names(&query).await
    }
}

/// A server with two databases: the owner of one can create roles, and a superuser owns the other.
async fn server() -> Cluster {
    let cluster = Cluster::new().await;
    cluster.execute("CREATE ROLE owner LOGIN CREATEROLE PASSWORD 'secret'").await;
    cluster.execute("CREATE DATABASE owned_by_owner OWNER owner").await;
    cluster.execute("CREATE DATABASE owned_by_superuser").await;
    cluster
}

/// One login per role, and one without a role.
const LOGINS: &str = "CREATE ROLE daemon LOGIN PASSWORD 'secret' IN ROLE rosterd_writer;
                      ALTER ROLE daemon SET role = rosterd_writer;
                      CREATE ROLE reader LOGIN PASSWORD 'secret' IN ROLE roster_reader;
                      CREATE ROLE consumer LOGIN PASSWORD 'secret' IN ROLE roster_consumer;
                      CREATE ROLE auditor LOGIN PASSWORD 'secret' IN ROLE roster_auditor;
                      CREATE ROLE front LOGIN PASSWORD 'secret' IN ROLE roster_scim;
                      CREATE ROLE provisioner LOGIN PASSWORD 'secret' IN ROLE roster_provisioner;
                      CREATE ROLE stranger LOGIN PASSWORD 'secret'";

#[tokio::test]
async fn roles_run_once_before_the_first_migration_give_each_role_its_rights() {
    let (cluster, sim) = (server().await, small_company().await);
    let database = Database { cluster: &cluster, name: "owned_by_owner" };
    database.run_roles(Some("owner")).await;
    cluster.execute(LOGINS).await;

    let program = Program::new(&sim, &database.url(Some("daemon")));
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
          WHERE nspname IN {ROSTERD_SCHEMAS} AND relowner <> 'rosterd_writer'::regrole"
    );
    assert_eq!(database.names(&others).await, [""; 0], "all objects belong to the role and not to a login");

    let rights = database.rights().await;
    database.run_roles(Some("owner")).await;
    assert_eq!(database.rights().await, rights, "a second run changes nothing");

    let callable = format!(
        "SELECT concat_ws(' ', pg_proc.oid::regprocedure, provolatile) FROM pg_proc
           JOIN pg_namespace AS space ON space.oid = pronamespace
          WHERE nspname IN {ROSTERD_SCHEMAS} AND has_function_privilege('auditor', pg_proc.oid, 'EXECUTE') ORDER BY 1"
    );
    let reads_only = ["assignments_as_of", "users_as_of"]
        .map(|name| format!("directory.{name}(timestamp with time zone) s"));
    assert_eq!(database.names(&callable).await, reads_only, "an auditor may call only functions that read");

    // A login may acknowledge only for consumers that it registered. An auditor may query the history.
    for (user, statement, may) in [
        ("consumer", "SELECT FROM roster.outbox_fetch('payroll', 1)", true),
        ("reader", "SELECT directory.outbox_ack('payroll', 1)", false),
        ("reader", "SELECT directory.outbox_start('payroll', 1)", false),
        ("consumer", "SELECT roster.outbox_ack('payroll', 1)", true),
        ("reader", "SELECT FROM directory.outbox_fetch('bi', 1)", true),
        ("auditor", "SELECT FROM directory.users_as_of(now())", true),
        ("stranger", "SELECT FROM directory.users_as_of(now())", false),
    ] {
        assert_eq!(database.may(user, statement).await, may, "{user}: {statement}");
    }

    // Objects that a later migration creates.
    database
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
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN {ROSTERD_SCHEMAS} ORDER BY 1"
    );
    let tables = database.names(&tables).await;
    assert!(tables.len() > 10 && tables.contains(&"roster.credentials".to_owned()), "{tables:?}");
    for table in &tables {
        let read = format!("SELECT FROM {table}");
        assert_eq!(database.may("auditor", &read).await, table != "roster.budget_salt", "{table}");
        let is_outbox = ["roster.consumers", "roster.outbox", "roster.outbox_head"].contains(&table.as_str());
        assert_eq!(database.may("consumer", &read).await, is_outbox, "{table}");
        for user in ["reader", "provisioner", "front", "stranger"] {
            assert!(!database.may(user, &read).await, "{user} reads {table}");
        }
        for (user, change) in ["auditor", "consumer", "reader", "provisioner", "front"]
            .into_iter()
            .flat_map(|user| ["DELETE FROM", "TRUNCATE", "DROP TABLE"].map(|change| (user, change)))
        {
            assert!(!database.may(user, &format!("{change} {table}")).await, "{user}: {change} {table}");
        }
    }
    for (user, sees) in
        [("reader", true), ("consumer", true), ("auditor", true), ("front", false), ("stranger", false)]
    {
        assert_eq!(database.may(user, "SELECT FROM directory.later").await, sees, "{user}");
        let follows = sees && user != "auditor";
        assert_eq!(database.may(user, "SELECT directory.follow()").await, follows, "{user}");
        for schema in ["roster", "directory", "rosterd_internal", "public"] {
            assert!(
                !database.may(user, &format!("CREATE TABLE {schema}.mine ()")).await,
                "{user} in {schema}"
            );
        }
    }
}

#[tokio::test]
async fn objects_created_by_a_superuser_are_transferred_to_the_writer_role() {
    let (cluster, sim) = (server().await, small_company().await);
    let database = Database { cluster: &cluster, name: "owned_by_superuser" };
    let before = Program::new(&sim, &database.url(None));
    before.call(&["sync"]).await.expect(0);
    database.run_roles(None).await;
    cluster.execute(LOGINS).await;
    let program = Program::new(&sim, &database.url(Some("daemon")));
    program.call(&["check"]).await.expect(0);
    sim.create_user("Ona", "Writer");
    assert!(program.call(&["sync"]).await.expect(0).stdout().contains("1 event"));
    assert!(database.may("auditor", "SELECT FROM roster.users").await);
    assert!(database.may("consumer", "SELECT FROM roster.outbox").await);
    assert!(!database.may("reader", "SELECT FROM roster.users").await);
}

const ASK: &str = "roster.write_ask(account => 7, kind => 'user_deactivate', user_id => 1001)";

#[tokio::test]
async fn provisioners_request_and_withdraw_writes_and_read_no_table() {
    let (cluster, sim) = (server().await, small_company().await);
    let database = Database { cluster: &cluster, name: "owned_by_owner" };
    database.run_roles(Some("owner")).await;
    cluster.execute(LOGINS).await;
    Program::new(&sim, &database.url(Some("daemon"))).call(&["migrate"]).await.expect(0);

    let callable = format!(
        "SELECT proname::text FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
          WHERE nspname IN {ROSTERD_SCHEMAS} AND has_function_privilege('provisioner', pg_proc.oid, 'EXECUTE')
            AND has_schema_privilege('provisioner', space.oid, 'USAGE') ORDER BY 1"
    );
    assert_eq!(database.names(&callable).await, ["write_ask", "write_outcome", "write_withdraw"]);
    database
        .try_as(Some("owner"), "INSERT INTO roster.accounts (account_id, epoch) VALUES (7, 1)")
        .await
        .unwrap();
    // The actor is the login, which the caller cannot choose.
    database
        .try_as(
            Some("provisioner"),
            &format!(
                "DO $$ BEGIN
                     ASSERT {ASK} = {ASK}, 'one open write for equal requests';
                     ASSERT (SELECT NOT held AND NOT sent AND outcome IS NULL FROM roster.write_outcome({ASK}));
                     ASSERT roster.write_withdraw({ASK});
                 END $$"
            ),
        )
        .await
        .unwrap();
    let actors = "SELECT concat_ws(' ', actor, outcome) FROM roster.writes";
    assert_eq!(database.names(actors).await, ["sql:provisioner withdrawn"]);

    let insert = "SELECT roster.write_insert(7, 'user_deactivate', 1001, NULL, NULL, '{}', 'cli:ada@ops-1')";
    for user in ["provisioner", "auditor", "consumer", "reader", "stranger"] {
        assert!(!database.may(user, insert).await, "{user}: {insert}");
        let ask = format!("SELECT {ASK}");
        assert_eq!(database.may(user, &ask).await, user == "provisioner", "{user}: {ask}");
    }
    for statement in [
        "SELECT wanted FROM roster.writes",
        "UPDATE roster.writes SET accepted_at = now(), accepted_by = 'cli:me'",
        "SELECT FROM directory.users",
        "SELECT FROM roster.users",
        "SELECT FROM roster.outbox_fetch('payroll', 1)",
    ] {
        assert!(!database.may("provisioner", statement).await, "{statement}");
    }
    assert!(database.may("auditor", "SELECT wanted FROM roster.writes").await);
}

#[tokio::test]
async fn scim_logins_read_two_views_and_request_writes_in_the_name_of_tokens() {
    let (cluster, sim) = (server().await, small_company().await);
    let database = Database { cluster: &cluster, name: "owned_by_owner" };
    database.run_roles(Some("owner")).await;
    cluster.execute(LOGINS).await;
    Program::new(&sim, &database.url(Some("daemon"))).call(&["sync"]).await.expect(0);

    let usable = format!(
        "SELECT proname::text FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
          WHERE nspname IN {ROSTERD_SCHEMAS} AND has_function_privilege('front', pg_proc.oid, 'EXECUTE')
            AND has_schema_privilege('front', space.oid, 'USAGE')
         UNION ALL
         SELECT relname::text FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
          WHERE nspname IN {ROSTERD_SCHEMAS} AND relkind IN ('r', 'p', 'v', 'm')
            AND has_any_column_privilege('front', pg_class.oid, 'SELECT, INSERT, UPDATE') ORDER BY 1"
    );
    let expected = "scim_account scim_answered scim_ask scim_groups scim_link_set scim_unanswered scim_users scim_withdraw \
                    write_outcome";
    assert_eq!(database.names(&usable).await.join(" "), expected);
    let ask = |token: &str, kind: &str, user: i64| {
        format!("SELECT roster.scim_ask(7, '{token}', '{kind}', {user}, '{{}}')")
    };
    database.try_as(Some("front"), &ask("okta", "user_update", 1001)).await.unwrap();
    // Not in the name of a person, and not of another actor.
    for (token, kind) in [("a b", "user_update"), ("", "user_update"), ("okta", "assignment_add")] {
        let refused = database.try_as(Some("front"), &ask(token, kind, 1001)).await.unwrap_err();
        let code = refused.as_database_error().and_then(sqlx::error::DatabaseError::code);
        assert_eq!(code.as_deref(), Some("22023"), "{token} {kind}");
    }
    // A deactivation passes although the journal is full, and cannot be withdrawn.
    database
        .try_as(
            Some("front"),
            "DO $$ BEGIN
                 PERFORM roster.scim_ask(7, 'okta', 'user_update', n, '{}') FROM generate_series(1, 499) AS n;
                 ASSERT NOT roster.scim_withdraw(roster.scim_ask(7, 'okta', 'user_deactivate', 1, '{}'), 'okta');
                 ASSERT NOT roster.scim_withdraw(roster.scim_ask(7, 'okta', 'user_deactivate', 2, '{}'), 'entra');
             END $$",
        )
        .await
        .unwrap();
    let full = database.try_as(Some("front"), &ask("okta", "user_update", 2000)).await.unwrap_err();
    assert_eq!(full.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref(), Some("53400"));
    let actors = database.names("SELECT DISTINCT actor FROM roster.writes").await;
    assert_eq!(actors, ["scim:okta"]);
}

#[tokio::test]
async fn logins_without_a_role_request_no_writes_if_the_roles_are_not_set_up() {
    let (cluster, sim) = (server().await, small_company().await);
    let database = Database { cluster: &cluster, name: "owned_by_superuser" };
    Program::new(&sim, &database.url(None)).call(&["migrate"]).await.expect(0);
    database
        .try_as(None, "CREATE ROLE visitor LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA roster TO visitor")
        .await
        .unwrap();
    for call in [
        ASK,
        "roster.write_insert(7, 'user_deactivate', 1001, NULL, NULL, '{}', 'cli:ada@ops-1')",
        "roster.write_outcome(gen_random_uuid())",
        "roster.write_withdraw(gen_random_uuid())",
    ] {
        assert!(!database.may("visitor", &format!("SELECT {call}")).await, "{call}");
    }
}
