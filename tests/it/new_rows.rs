//! New rows, which rosterd loads with COPY.

use crate::database::{TestDatabase, store};
use crate::mirror::Mirror;
use crate::program::Program;
use crate::scene::small_company;
use crate::statement_proxy::{StatementProxy, When};

/// rosterd reads the rows of a page and loads the new ones with COPY, which cannot update a row that was added in between.
#[tokio::test]
async fn row_added_manually_while_its_record_is_stored_is_updated() {
    let sim = small_company().await;
    let database = TestDatabase::blank().await;
    let proxy = StatementProxy::to(database.url()).await;
    let program = Program::new(&sim, proxy.url());
    program.call(&["sync"]).await.expect(0);
    let user = sim.create_user("Meanwhile", "Hired");
    let mirror = Mirror { sim, store: store(database.url()) };
    let copy = proxy.catch(When::Before, 1, "INSERT INTO roster.users");
    let add_row = async {
        let held = copy.caught().await;
        let row = format!(
            "INSERT INTO roster.users (account_id, id, is_active, raw, version, content_hash, synced_at)
             SELECT account_id, {user}, false, '{{}}', 1, 0, now() FROM roster.accounts"
        );
        mirror.execute(row).await;
        held.go_on();
    };
    let (called, ()) = tokio::join!(program.call(&["sync"]), add_row);
    called.expect(0);
    mirror.expect_mirror_equals_source().await;
    mirror.until("SELECT NOT EXISTS (SELECT FROM roster.rejected_records)").await;
}
