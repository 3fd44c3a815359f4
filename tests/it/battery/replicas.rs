//! Two and three processes on one account: whoever sleeps, dies or is cut off, one writes at a time.

use std::time::Duration;

use rand::RngExt;
use tokio::time::{sleep, timeout};

use super::{Diary, Field, Replica};
use crate::program::STUCK;
use crate::tap::{Held, When};

/// Longer than a process may be silent, by more than it takes another one to notice.
const LONG: Duration = Duration::from_millis(4500);

/// Notes who wrote in which epoch, in the very transaction.
const WITNESS: &str = "
    CREATE TABLE public.written (epoch bigint, role text, seq bigint);
    CREATE FUNCTION public.witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.written SELECT epoch, session_user, NEW.seq FROM roster.accounts;
        RETURN NULL;
    END $$;
    CREATE TRIGGER witness AFTER INSERT ON roster.outbox FOR EACH ROW EXECUTE FUNCTION public.witness();";

/// Epochs in which more than one wrote, and events that were told in an earlier epoch than the one before.
const NOT_ONE: &str = "
    SELECT (SELECT count(*) FROM (SELECT FROM public.written GROUP BY epoch HAVING count(DISTINCT role) > 1) AS shared)
         + (SELECT count(*) FROM (SELECT epoch < lag(epoch) OVER (ORDER BY seq) AS is_old FROM public.written) AS told
             WHERE is_old)";

/// What happens to the holder.
#[derive(Clone, Copy)]
enum Blow {
    Killed,
    KilledInCommit,
    Asleep,
    AsleepInCommit,
    /// What it has read is old when it comes to write it.
    AsleepAtTheLock,
    NetworkStill,
    NetworkCut,
}

const BLOWS: [Blow; 7] = [
    Blow::Killed,
    Blow::KilledInCommit,
    Blow::Asleep,
    Blow::AsleepInCommit,
    Blow::AsleepAtTheLock,
    Blow::NetworkStill,
    Blow::NetworkCut,
];

struct Team {
    field: Field,
    replicas: Vec<Replica>,
    blows: Vec<Blow>,
}

impl Team {
    async fn new(test: &'static str, rounds: u64, with_full_reads: bool, size: usize) -> Self {
        let field = Field::new(Diary::of(test, rounds), with_full_reads).await;
        field.mirror.execute(WITNESS).await;
        let mut replicas = Vec::new();
        for nth in 1..=size {
            replicas.push(field.replica(&format!("replica_{nth}")).await);
        }
        Self { field, replicas, blows: Vec::new() }
    }

    async fn run(mut self) {
        self.field.edit();
        self.field.until("SELECT count(*) = 2 FROM roster.watermarks".to_owned()).await;
        for round in 1..=self.field.diary.rounds {
            self.field.diary.round = round;
            self.field.trouble();
            let holder = self.holder().await;
            self.round(holder).await;
            for replica in &mut self.replicas {
                assert_eq!(replica.daemon.child.try_wait().unwrap(), None, "it lives");
            }
            self.field.check().await;
            assert_eq!(
                self.field.mirror.number(NOT_ONE).await,
                0,
                "one writer an epoch, and none of an old one"
            );
            if round % 4 == 0 || round == self.field.diary.rounds {
                let holder = self.holder().await;
                self.field.settle(&mut self.replicas[holder]).await;
                self.field.edit();
            }
        }
        self.field.end();
    }

    /// Who writes: one of those that live does, sooner or later.
    async fn holder(&self) -> usize {
        const HOLDER: &str =
            "SELECT replicas.name FROM roster.accounts JOIN roster.replicas ON replicas.id = holder
                               WHERE expires_at > clock_timestamp()";
        let seek = async {
            loop {
                let name: Option<String> =
                    sqlx::query_scalar(HOLDER).fetch_optional(self.field.mirror.store.pool()).await.unwrap();
                let is_it = |replica: &Replica| {
                    name.as_ref()
                        .is_some_and(|name| name.ends_with(&format!(":{}", replica.daemon.child.id())))
                };
                if let Some(holder) = self.replicas.iter().position(is_it) {
                    return holder;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(STUCK, seek).await.expect("nobody writes")
    }

    async fn round(&mut self, holder: usize) {
        let (when, name) = *self.field.pick(&[(When::Before, "before"), (When::After, "after")]);
        match self.field.draw(&mut self.blows, &BLOWS) {
            Blow::Killed => {
                self.field.diary.note("holder killed");
                self.kill(holder).await;
            }
            Blow::KilledInCommit => {
                self.field.diary.note(format!("holder killed {name} a page's commit"));
                let _last_words = self.in_commit(holder, when).await;
                self.kill(holder).await;
            }
            Blow::Asleep => {
                self.field.diary.note("holder asleep");
                self.asleep(holder, None, false).await;
            }
            Blow::AsleepInCommit => {
                self.field.diary.note(format!("holder asleep {name} a page's commit"));
                let held = self.in_commit(holder, when).await;
                let is_late = self.field.rng.random_bool(0.5);
                self.asleep(holder, Some(held), is_late).await;
            }
            Blow::AsleepAtTheLock => {
                self.field.diary.note("holder asleep before it has the account's lock");
                let held = self.at(holder, When::Before, "FOR UPDATE OF account").await;
                // Nor does it learn by its heartbeat what it has missed, before it had the time to do harm.
                let beat = self.replicas[holder].tap.catch(When::Before, 1, "WITH before AS MATERIALIZED");
                self.asleep(holder, Some(held), true).await;
                sleep(Duration::from_secs(1)).await;
                drop(beat);
            }
            Blow::NetworkStill => {
                self.field.diary.note("holder's network still");
                self.replicas[holder].wire.hold();
                sleep(LONG).await;
                self.replicas[holder].wire.mend();
            }
            Blow::NetworkCut => {
                self.field.diary.note("holder's network cut");
                self.replicas[holder].wire.cut().await;
                sleep(LONG).await;
                self.replicas[holder].wire.mend();
            }
        }
    }

    async fn kill(&mut self, holder: usize) {
        self.replicas[holder].daemon.signal("-KILL");
        self.replicas[holder].daemon.ended().await;
        self.replicas[holder].start();
    }

    async fn at(&self, holder: usize, when: When, text: &str) -> Held {
        self.field.nudging(self.replicas[holder].tap.catch(when, 1, text).caught()).await
    }

    async fn in_commit(&self, holder: usize, when: When) -> Held {
        let insert = self.at(holder, When::Before, "INSERT INTO roster.outbox (").await;
        insert.then(when, "COMMIT").caught().await
    }

    /// For long enough to be followed. What it was about to say or to hear comes before that, or too late.
    async fn asleep(&mut self, holder: usize, mut held: Option<Held>, is_late: bool) {
        let epoch = self.field.mirror.number("SELECT epoch FROM roster.accounts").await;
        self.replicas[holder].daemon.signal("-STOP");
        sleep(LONG).await;
        if !is_late {
            held.take();
        }
        self.field.until(format!("SELECT epoch > {epoch} FROM roster.accounts")).await;
        drop(held);
        self.replicas[holder].daemon.signal("-CONT");
    }
}

#[tokio::test]
async fn two_processes_are_one_writer() {
    Team::new("replicas::two_processes_are_one_writer", 7, false, 2).await.run().await;
}

#[tokio::test]
async fn three_processes_are_one_writer() {
    Team::new("replicas::three_processes_are_one_writer", 7, true, 3).await.run().await;
}
