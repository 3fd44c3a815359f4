//! Commands with a permanent effect need confirmation: an answer to a preview on a terminal, `--yes` elsewhere.

use crate::scene::Scene;
use crate::terminal;

/// A mirror with 12 held deletions, and a program whose settings have no account.
async fn with_held_deletions() -> (Scene, crate::program::Program) {
    let scene = Scene::new().await;
    let mut program = scene.program();
    program.call(&["sync"]).await.expect(0);
    let owner = scene.sim.token_owner();
    for user in scene.sim.user_ids().into_iter().filter(|user| *user != owner).take(12) {
        scene.sim.delete_user(user);
    }
    program.call(&["sync"]).await.expect(0);
    scene.execute("DELETE FROM roster.held_deletions WHERE resource = 'user_assignments'").await;
    assert_eq!(scene.number("SELECT count(*) FROM roster.held_deletions WHERE resource = 'users'").await, 12);
    program.set("HARVEST_ACCOUNT_ID", "").set("HARVEST_ACCESS_TOKEN", "");
    (scene, program)
}

/// All state that these commands can change.
async fn state(scene: &Scene) -> (Vec<String>, i64) {
    let decisions = "SELECT count(*) FROM roster.held_deletions WHERE decision IS NOT NULL";
    (scene.physical().await, scene.number(decisions).await)
}

#[tokio::test]
async fn permanent_commands_without_a_terminal_need_yes_and_dry_run_changes_nothing() {
    let (scene, program) = with_held_deletions().await;
    let (user, account) = (scene.sim.user_ids()[0].to_string(), scene.sim.account_id().to_string());
    let before = state(&scene).await;
    for (command, preview) in [
        (&["forget", "user", &user][..], "would erase user"),
        (&["forget", "pay"], "would erase the pay data of all accounts: "),
        (&["forget", "account", &account], "would erase account 123456: 60 rows, 0 past versions"),
        (&["outbox", "new-stream"], "would begin a new stream: "),
        (&["deletions", "accept", "--all"], "would accept 12 deletions of users in account 123456: too many"),
    ] {
        let refused = program.call(command).await;
        let output = refused.expect(2).sentence();
        assert!(output.contains("--yes") && output.contains("--dry-run"), "{command:?}: {output}");
        let dry_run = program.call(&[command, &["--dry-run"]].concat()).await.expect(0).stdout();
        assert!(
            dry_run.contains(preview) && dry_run.contains("nothing was changed"),
            "{command:?}: {dry_run}"
        );
        program.call(&[command, &["--dry-run", "--yes"]].concat()).await.expect(2);
        assert_eq!(state(&scene).await, before, "{command:?}");
    }
}

#[tokio::test]
async fn permanent_commands_on_a_terminal_show_a_preview_and_follow_the_answer() {
    let (scene, program) = with_held_deletions().await;
    let user = scene.sim.user_ids()[0].to_string();
    let before = state(&scene).await;
    for command in
        [&["forget", "user", &user][..], &["outbox", "new-stream"], &["deletions", "accept", "--all"]]
    {
        for answer in ["no\n", "\n", "\u{4}"] {
            let shown = terminal::call(&program, command, answer).await;
            let text = &shown.expect(1).text;
            assert!(text.contains("would ") && text.contains("Type yes to continue"), "{text}");
            assert!(text.contains("not confirmed: nothing was changed"), "{text}");
        }
        assert_eq!(state(&scene).await, before, "{command:?}");
    }
    let shown = terminal::call(&program, &["deletions", "accept", "--all"], "yes\n").await;
    assert!(shown.expect(0).text.contains("12 deletions accepted"), "{}", shown.text);
    let shown = terminal::call(&program, &["forget", "user", &user], "YES\n").await;
    let text = &shown.expect(0).text;
    let [preview, erased] = ["would erase user ", "erased user "].map(|words| {
        let line = text.lines().find_map(|line| line.strip_prefix(words)).expect(words);
        line.trim_end().to_owned()
    });
    assert_eq!(preview, erased, "preview and result differ");
    assert_eq!(scene.number("SELECT count(*) FROM roster.users WHERE email IS NULL").await, 1);
}

#[tokio::test]
async fn forget_account_of_a_configured_account_needs_yes_on_a_terminal_too() {
    let (scene, _) = with_held_deletions().await;
    let (program, account) = (scene.program(), scene.sim.account_id().to_string());
    let shown = terminal::call(&program, &["forget", "account", &account], "yes\n").await;
    assert!(shown.expect(2).text.contains("is still in the settings"), "{}", shown.text);
    program.call(&["forget", "account", &account, "--dry-run"]).await.expect(0);
    assert_eq!(scene.number("SELECT count(*) FROM roster.accounts").await, 1);
    let erased = program.call(&["forget", "account", &account, "--yes"]).await;
    assert!(
        erased.expect(0).sentence().contains("the next `run` or `sync` reads it again"),
        "{}",
        erased.stderr()
    );
    assert_eq!(scene.number("SELECT count(*) FROM roster.accounts").await, 0);
}

#[tokio::test]
async fn deletions_accept_and_reject_take_ids_an_account_or_all() {
    let (scene, program) = with_held_deletions().await;
    scene
        .execute(
            "INSERT INTO roster.held_deletions (account_id, resource, record_id, found_at, reason)
             VALUES (123456, 'cost_rates', 77, now(), 'guard'), (123456, 'user_assignments', 88, now(), 'guard'),
                    (222222, 'user_assignments', 88, now(), 'empty_list'), (222222, 'user_assignments', 99, now(), 'guard')",
        )
        .await;
    let users: Vec<String> = sqlx::query_scalar(
        "SELECT record_id::text FROM roster.held_deletions WHERE resource = 'users' ORDER BY record_id",
    )
    .fetch_all(scene.store.pool())
    .await
    .unwrap();
    let decided_as = async |decision: &str| -> Vec<String> {
        sqlx::query_scalar(
            "SELECT concat_ws(' ', account_id, resource, record_id) FROM roster.held_deletions
              WHERE decision = $1 ORDER BY account_id, resource, record_id",
        )
        .bind(decision)
        .fetch_all(scene.store.pool())
        .await
        .unwrap()
    };

    for verb in ["accept", "reject"] {
        let refused = program.call(&["deletions", verb]).await;
        let output = refused.expect(2).stderr();
        assert!(
            output.contains("--account <ID>") && output.contains("--all") && output.contains("KIND"),
            "{output}"
        );
        program.call(&["deletions", verb, "user"]).await.expect(2);
        program.call(&["deletions", verb, "person", "1"]).await.expect(2);
        program.call(&["deletions", verb, "--all", "--account", "123456"]).await.expect(2);
    }
    let unknown = program.call(&["deletions", "reject", "user", &users[0], "41"]).await;
    assert!(unknown.expect(1).sentence().contains("no deletion of user 41 is held"), "{}", unknown.stderr());
    let ambiguous = program.call(&["deletions", "reject", "assignment", "88"]).await;
    assert!(ambiguous.expect(2).sentence().contains("in accounts 123456, 222222"), "{}", ambiguous.stderr());
    assert!(decided_as("rejected").await.is_empty());

    let rejected =
        program.call(&["deletions", "reject", "users", &users[0], &users[1]]).await.expect(0).stdout();
    assert_eq!(rejected, "2 deletions rejected: the rows stay as they are\n");
    program.call(&["deletions", "reject", "cost_rate", "77"]).await.expect(0);
    program.call(&["deletions", "reject", "user_assignments", "88", "--account", "222222"]).await.expect(0);
    let expected = [
        "123456 cost_rates 77".to_owned(),
        format!("123456 users {}", users[0]),
        format!("123456 users {}", users[1]),
        "222222 user_assignments 88".to_owned(),
    ];
    assert_eq!(decided_as("rejected").await, expected);
    program.call(&["deletions", "accept", "user", &users[2], "--yes"]).await.expect(0);
    let refused = program.call(&["deletions", "accept", "user", &users[0], "--yes"]).await;
    assert!(refused.expect(0).sentence().contains("--again"), "{}", refused.stderr());
    assert_eq!(decided_as("accepted").await, [format!("123456 users {}", users[2])]);
    program.call(&["deletions", "accept", "user", &users[0], "--again", "--yes"]).await.expect(0);
    assert_eq!(decided_as("accepted").await.len(), 2);
    program.call(&["deletions", "accept", "--account", "222222", "--yes"]).await.expect(0);
    assert_eq!(decided_as("accepted").await.len(), 3);
    program.call(&["deletions", "reject", "--all"]).await.expect(0);
    assert_eq!((decided_as("accepted").await.len(), decided_as("rejected").await.len()), (3, 13));
}

#[tokio::test]
async fn held_deletions_show_names_on_a_terminal_with_values_and_ids_otherwise() {
    let scene = Scene::new().await;
    let program = scene.program();
    let user = scene.sim.create_user("Nadia", "Named");
    let assignment = scene.sim.assign(user, scene.sim.project_ids()[0]);
    scene.sim.edit_project(scene.sim.project_ids()[0], |project| "Bridge".clone_into(&mut project.name));
    scene.sim.add_cost_rate(user, 55.5, None);
    let mut with_rates = scene.program();
    with_rates.set("ROSTERD__RATES__HISTORIES", "true").call(&["sync"]).await.expect(0);
    let held = format!(
        "INSERT INTO roster.held_deletions (account_id, resource, record_id, found_at, reason)
         SELECT 123456, resource, id, now(), 'guard'
           FROM (VALUES ('users', {user}), ('user_assignments', {assignment})) AS held (resource, id)
         UNION ALL SELECT 123456, 'cost_rates', id, now(), 'not_administrator' FROM roster.cost_rates WHERE user_id = {user}"
    );
    scene.execute(held).await;
    let names = ["Nadia", "Named", "Bridge"];
    for arguments in
        [&["deletions", "list"][..], &["deletions", "list", "--values"], &["deletions", "list", "--json"]]
    {
        let called = program.call(arguments).await;
        let output = called.expect(0).stdout() + &called.stderr();
        assert!(names.iter().all(|name| !output.contains(name)), "{output}");
    }
    let shown = terminal::call(&program, &["deletions", "list"], "").await;
    assert!(names.iter().all(|name| !shown.expect(0).text.contains(name)), "{}", shown.text);
    let shown = terminal::call(&program, &["deletions", "list", "--values"], "").await;
    let lines: Vec<_> = shown.expect(0).text.lines().filter(|line| line.starts_with("account ")).collect();
    assert_eq!(lines.len(), 3, "{}", shown.text);
    assert!(lines[0].contains(&format!("users {user} (Nadia Named): absent since ")), "{}", lines[0]);
    assert!(lines[0].contains("too many records were absent at once (guard); undecided"), "{}", lines[0]);
    assert!(
        lines[1].contains(&format!("user_assignments {assignment} (Nadia Named, Bridge): ")),
        "{}",
        lines[1]
    );
    assert!(lines[2].contains(" (Nadia Named): ") && lines[2].contains("no administrator"), "{}", lines[2]);
    assert!(!shown.text.contains("55.5"), "pay data is shown with the names");
}
