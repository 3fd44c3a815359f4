//! Finds the indexes and the replaced views in the text of a migration. Each of these statements must begin a line; an
//! index statement ends at the next semicolon.
//!
//! `CREATE INDEX` blocks writers of the table until the transaction ends, which takes seconds for a table with a
//! million rows. `CREATE INDEX CONCURRENTLY` does not block writers, but cannot run in a transaction. So the index of a
//! table that holds rows is built before the migration's transaction, and the statement is removed from the migration:
//! even `CREATE INDEX IF NOT EXISTS` locks the table before it checks.

const BEGINNINGS: [&str; 2] = ["CREATE INDEX ", "CREATE UNIQUE INDEX "];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index<'m> {
    /// With its schema, which is the schema of the table.
    pub name: String,
    /// With its schema.
    pub table: &'m str,
    /// The statement, without its semicolon.
    pub statement: &'m str,
    /// The statement that builds it without blocking writers.
    pub concurrently: String,
}

impl Index<'_> {
    pub fn drop_statement(&self) -> String {
        format!("DROP INDEX {}", self.name)
    }
}

pub(super) fn indexes(migration: &str) -> Vec<Index<'_>> {
    let mut indexes = Vec::new();
    let mut rest = migration;
    while let Some((_, after)) = rest.split_once('\n') {
        rest = after;
        let Some(beginning) = BEGINNINGS.iter().find(|beginning| rest.starts_with(**beginning)) else {
            continue;
        };
        let statement = rest.split(';').next().unwrap_or(rest);
        let mut words = statement[beginning.len()..].split_ascii_whitespace();
        if let (Some(name), Some("ON"), Some(table)) = (words.next(), words.next(), words.next()) {
            let schema = table.split_once('.').map_or("public", |(schema, _)| schema);
            let name = format!("{schema}.{name}");
            let concurrently = statement.replacen(" INDEX ", " INDEX CONCURRENTLY IF NOT EXISTS ", 1);
            indexes.push(Index { name, table, statement, concurrently });
        }
    }
    indexes
}

/// Statements that lock the views that a migration replaces before it locks a table. A reader locks a view first and
/// then its tables: another order in the migration could cause a deadlock. `LOCK TABLE` would lock the tables too, so
/// each statement resets an option that the view does not have.
pub(super) fn lock_views(migration: &str) -> String {
    let views =
        migration.lines().filter_map(|line| line.strip_prefix("CREATE OR REPLACE VIEW ")?.split(' ').next());
    let statements: Vec<_> =
        views.map(|view| format!("ALTER VIEW IF EXISTS {view} RESET (check_option);\n")).collect();
    statements.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_statements_become_concurrent() {
        let text = "-- why\nCREATE TABLE roster.a (b int);\nCREATE INDEX a_b ON roster.a (b)\n    WHERE b > 0;\n\
                    CREATE UNIQUE INDEX a_c ON roster.a (lower(c));\nCOMMENT ON TABLE roster.a IS 'CREATE INDEX x ON y';\n";
        let found: Vec<_> = indexes(text).into_iter().map(|index| (index.name, index.concurrently)).collect();
        let expected = [
            ("roster.a_b", "CREATE INDEX CONCURRENTLY IF NOT EXISTS a_b ON roster.a (b)\n    WHERE b > 0"),
            ("roster.a_c", "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS a_c ON roster.a (lower(c))"),
        ];
        assert_eq!(found, expected.map(|(name, statement)| (name.to_owned(), statement.to_owned())));
    }

    #[test]
    fn indexes_of_all_migrations_are_found() {
        for migration in super::super::migrator::migrator().iter() {
            let text = migration.sql.as_str();
            let statements = text.lines().map(str::trim_start).filter(|line| {
                line.starts_with("CREATE ")
                    && line.split(" ON ").next().is_some_and(|line| line.contains(" INDEX "))
            });
            assert_eq!(indexes(text).len(), statements.count(), "migration {}", migration.version);
        }
    }
}
