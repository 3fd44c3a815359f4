//! Two and three processes on one account. One process writes in each epoch, even if others are suspended, killed or
//! disconnected.

use std::time::Duration;

use rand::RngExt;
use tokio::time::{sleep, timeout};

use super::{Environment, FaultLog, Replica};
use crate::program::STUCK;
use crate::statement_proxy::{Held, When};

/// Longer than the lease's TTL, by more than another process needs to notice.
const LONG: Duration = Duration::from_millis(4500);

/// Records the role and epoch of each event, in the same transaction.
const WITNESS: &str = "
    CREATE TABLE public.written (epoch bigint, role text, seq bigint);
    CREATE FUNCTION public.witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.written SELECT epoch, session_user, NEW.seq FROM roster.accounts;
        RETURN NULL;
    END $$;
    CREATE TRIGGER witness AFTER INSERT ON roster.outbox FOR EACH ROW EXECUTE FUNCTION public.witness();";

/// Counts epochs with several writers, and events of an earlier epoch than the event before.
const VIOLATIONS: &str = "
    SELECT (SELECT count(*) FROM (SELECT FROM public.written GROUP BY epoch HAVING count(DISTINCT role) > 1) AS shared)
         + (SELECT count(*) FROM (SELECT epoch < lag(epoch) OVER (ORDER BY seq) AS is_old FROM public.written) AS written
             WHERE is_old)";

/// What happens to the lease holder.
#[derive(Clone, Copy)]
enum Injection {
    Killed,
    KilledInCommit,
    Suspended,
    SuspendedInCommit,
    /// It continues with records that are older than those in the mirror.
    SuspendedAtTheLock,
    NetworkStalled,
    NetworkCut,
}

const INJECTIONS: [Injection; 7] = [
    Injection::Killed,
    Injection::KilledInCommit,
    Injection::Suspended,
    Injection::SuspendedInCommit,
    Injection::SuspendedAtTheLock,
    Injection::NetworkStalled,
    Injection::NetworkCut,
];

struct Campaign {
    environment: Environment,
    replicas: Vec<Replica>,
    injections: Vec<Injection>,
}

impl Campaign {
    async fn new(test: &'static str, rounds: u64, with_full_reads: bool, size: usize) -> Self {
        let environment = Environment::new(FaultLog::of(test, rounds), with_full_reads).await;
        environment.mirror.execute(WITNESS).await;
        let mut replicas = Vec::new();
        for nth in 1..=size {
            replicas.push(environment.replica(&format!("replica_{nth}")).await);
        }
        Self { environment, replicas, injections: Vec::new() }
    }

    async fn run(mut self) {
        self.environment.edit();
        self.environment.until("SELECT count(*) = 2 FROM roster.watermarks".to_owned()).await;
        for round in 1..=self.environment.faults.rounds {
            self.environment.faults.round = round;
            self.environment.maybe_fail_harvest();
            let holder = self.holder().await;
            self.round(holder).await;
            for replica in &mut self.replicas {
                assert_eq!(replica.daemon.child.try_wait().unwrap(), None, "the process should be running");
            }
            self.environment.check().await;
            assert_eq!(
                self.environment.mirror.number(VIOLATIONS).await,
                0,
                "each epoch should have one writer, and no old epoch should return"
            );
            if round % 4 == 0 || round == self.environment.faults.rounds {
                let holder = self.holder().await;
                self.environment.converge(&mut self.replicas[holder]).await;
                self.environment.edit();
            }
        }
        self.environment.end();
    }

    /// Waits for a lease holder that is running, and returns its index.
    async fn holder(&self) -> usize {
        const HOLDER: &str =
            "SELECT replicas.name FROM roster.accounts JOIN roster.replicas ON replicas.id = holder
                               WHERE expires_at > clock_timestamp()";
        let seek = async {
            loop {
                let name: Option<String> = sqlx::query_scalar(HOLDER)
                    .fetch_optional(self.environment.mirror.store.pool())
                    .await
                    .unwrap();
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
        timeout(STUCK, seek).await.expect("no process holds the lease")
    }

    async fn round(&mut self, holder: usize) {
        let (when, name) = *self.environment.pick(&[(When::Before, "before"), (When::After, "after")]);
        match self.environment.draw(&mut self.injections, &INJECTIONS) {
            Injection::Killed => {
                self.environment.faults.note("holder killed");
                self.kill(holder).await;
            }
            Injection::KilledInCommit => {
                self.environment.faults.note(format!("holder killed {name} a page's commit"));
                let _held = self.in_commit(holder, when).await;
                self.kill(holder).await;
            }
            Injection::Suspended => {
                self.environment.faults.note("holder suspended");
                self.suspend(holder, None, false).await;
            }
            Injection::SuspendedInCommit => {
                self.environment.faults.note(format!("holder suspended {name} a page's commit"));
                let held = self.in_commit(holder, when).await;
                let is_late = self.environment.rng.random_bool(0.5);
                self.suspend(holder, Some(held), is_late).await;
            }
            Injection::SuspendedAtTheLock => {
                self.environment.faults.note("holder suspended before it has the account's lock");
                let held = self.at(holder, When::Before, "FOR UPDATE OF account").await;
                // Holds the heartbeat as well, which would report the lost lease before the process can write.
                let beat = self.replicas[holder].proxy.catch(When::Before, 1, "WITH before AS MATERIALIZED");
                self.suspend(holder, Some(held), true).await;
                sleep(Duration::from_secs(1)).await;
                drop(beat);
            }
            Injection::NetworkStalled => {
                self.environment.faults.note("holder's network stalled");
                self.replicas[holder].wire.hold();
                sleep(LONG).await;
                self.replicas[holder].wire.restore();
            }
            Injection::NetworkCut => {
                self.environment.faults.note("holder's network cut");
                self.replicas[holder].wire.cut().await;
                sleep(LONG).await;
                self.replicas[holder].wire.restore();
            }
        }
    }

    async fn kill(&mut self, holder: usize) {
        self.replicas[holder].daemon.signal("-KILL");
        self.replicas[holder].daemon.ended().await;
        self.replicas[holder].start();
    }

    async fn at(&self, holder: usize, when: When, text: &str) -> Held {
        self.environment.requesting_cycles(self.replicas[holder].proxy.catch(when, 1, text).caught()).await
    }

    async fn in_commit(&self, holder: usize, when: When) -> Held {
        let insert = self.at(holder, When::Before, "roster.outbox (seq").await;
        insert.then(when, "COMMIT").caught().await
    }

    /// Suspends the process until another one has taken over. The held message arrives before that, or after it if
    /// `is_late`.
    async fn suspend(&mut self, holder: usize, mut held: Option<Held>, is_late: bool) {
        let epoch = self.environment.mirror.number("SELECT epoch FROM roster.accounts").await;
        self.replicas[holder].daemon.signal("-STOP");
        sleep(LONG).await;
        if !is_late {
            held.take();
        }
        self.environment.until(format!("SELECT epoch > {epoch} FROM roster.accounts")).await;
        drop(held);
        self.replicas[holder].daemon.signal("-CONT");
    }
}

#[tokio::test]
async fn two_processes_have_one_writer_per_epoch() {
    Campaign::new("replicas::two_processes_have_one_writer_per_epoch", 7, false, 2).await.run().await;
}

#[tokio::test]
async fn three_processes_have_one_writer_per_epoch() {
    Campaign::new("replicas::three_processes_have_one_writer_per_epoch", 7, true, 3).await.run().await;
}
