//! Records that PostgreSQL refuses: is the cause the record, or the database?
//!
//! Nothing is stored until that is known. Each attempt is a transaction of its own that is rolled back.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::apply::{News, Suspect, Writer, owner};
use super::report::Report;
use super::sink::Batch;
use crate::harvest::{Decode, wire};
use crate::roster::{Fetched, Reading};
use crate::store::rejected::Rejection;
use crate::store::{StoreError, Table};

/// At most so many refused records are tried again at each poll. If there are more, they are chosen at random.
const MOST_RETRIED: i64 = 100;

/// Refused records by id, each with the reason.
pub(super) type Refused = HashMap<i64, String>;

impl Writer<'_> {
    /// Moves the records that PostgreSQL refuses from the news to its rejections, and returns their number. `of`: how many
    /// records the page has.
    ///
    /// # Errors
    /// If PostgreSQL refuses too many records of the page, or a row that it accepted before: the cause is the database then.
    pub(super) async fn quarantine<R: Decode + Table>(
        &self,
        news: &mut News<R>,
        of: usize,
        error: StoreError,
        report: &Report,
    ) -> Result<u64, StoreError> {
        news.suspects.sort_by_key(Suspect::id);
        let suspects = &news.suspects;
        let too_many = |refused| self.guard.holds(refused, of as u64);
        let refused = self.refused_alone(suspects, too_many, report).await?;
        let changed = suspects.chunk_by(|a, b| a.id() == b.id()).count();
        let is_trouble = match refused.len() {
            0 => false,
            many if too_many(many) => true,
            few => !self.takes_a_known_row(suspects, report).await?.unwrap_or(few < changed),
        };
        if is_trouble {
            return Err(error.of_the_database(R::RESOURCE.name(), refused.len(), changed));
        }
        for same in suspects.chunk_by(|a, b| a.id() == b.id()) {
            // Of two states of a record the later one counts.
            if let (Some(suspect), Some(reason)) = (same.last(), refused.get(&same[0].id())) {
                news.rejections.push(Rejection {
                    id: Some(suspect.id()),
                    user_id: owner(&suspect.image.record),
                    raw: suspect.image.raw.get().to_owned(),
                    reason: reason.clone(),
                    refused_by_database: true,
                });
            }
        }
        news.leave_out(&refused);
        Ok(refused.len() as u64)
    }

    /// Writes the suspects with their events, and rolls back.
    async fn attempt<R: Table>(&self, suspects: &[Suspect<R>], report: &Report) -> Result<(), StoreError> {
        match self.attempt_once(suspects, &HashMap::new(), report).await {
            Err(error) if error.is_version_conflict() => {
                let last = self.last_versions(suspects).await?;
                self.attempt_once(suspects, &last, report).await
            }
            done => done,
        }
    }

    async fn attempt_once<R: Table>(
        &self,
        suspects: &[Suspect<R>],
        last: &HashMap<i64, i64>,
        report: &Report,
    ) -> Result<(), StoreError> {
        let mut page = self.store.begin(&self.fence).await?;
        let (events, _) = self.write(&mut page, suspects, last, report).await?;
        page.emit(&events).await?;
        page.check_deferred().await
    }

    /// Finds by halving which of the suspects, sorted by id, PostgreSQL refuses even alone. Stops when they are too many.
    async fn refused_alone<R: Table>(
        &self,
        suspects: &[Suspect<R>],
        too_many: impl Fn(usize) -> bool,
        report: &Report,
    ) -> Result<Refused, StoreError> {
        let ids: Vec<i64> = suspects.chunk_by(|a, b| a.id() == b.id()).map(|same| same[0].id()).collect();
        let (mut refused, mut open) = (Refused::new(), vec![&ids[..]]);
        while let Some(some) = open.pop()
            && !too_many(refused.len())
        {
            let (Some(first), Some(last)) = (some.first(), some.last()) else { continue };
            let start = suspects.partition_point(|suspect| suspect.id() < *first);
            let end = suspects.partition_point(|suspect| suspect.id() <= *last);
            match self.attempt(&suspects[start..end], report).await {
                Err(error) if !error.is_refusal() => return Err(error),
                Err(error) if some.len() == 1 => _ = refused.insert(*first, error.refusal()),
                Err(_) => open.extend(<[_; 2]>::from(some.split_at(some.len() / 2))),
                Ok(()) => {}
            }
        }
        Ok(refused)
    }

    /// Whether PostgreSQL accepts a row of this table that it accepted before, both as a change and as a new row. `None` if
    /// the mirror has no row other than those of the suspects.
    async fn takes_a_known_row<R: Table>(
        &self,
        suspects: &[Suspect<R>],
        report: &Report,
    ) -> Result<Option<bool>, StoreError> {
        let ids: Vec<i64> = suspects.iter().map(Suspect::id).collect();
        let account = self.fence.account;
        let Some((id, raw)) = self.store.known_good(account, R::RESOURCE, &ids).await? else {
            return Ok(None);
        };
        let Some(row) = self.store.rows::<R>(account, &[id]).await?.remove(&id) else { return Ok(None) };
        let Ok(raw) = RawValue::from_string(raw) else { return Ok(None) };
        // Harvest's ids are positive.
        let new = row.record.clone().with_id(-id);
        for record in [row.record, new] {
            let is_new = record.id() != id;
            let image = Fetched { record, raw: raw.clone(), hash: row.hash.wrapping_add(1) };
            let known = Suspect { image, reading: Reading::Full, request: None };
            match self.attempt(&[known], report).await {
                Ok(()) => {}
                // A unique index of the operator's: the new row repeats the known one.
                Err(error) if is_new && error.is_unique_violation() => {}
                Err(error) if error.is_refusal() => return Ok(Some(false)),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(true))
    }

    /// Stores the refused records that PostgreSQL accepts now, from their text on file. That text is the newest state: storing
    /// a newer one would have removed it.
    pub(super) async fn retry<R: Decode + Table>(
        &self,
        with_pay: bool,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let kept = self.store.refused(self.fence.account, R::RESOURCE, MOST_RETRIED).await?;
        let images = kept.into_iter().filter_map(|raw| {
            let raw = RawValue::from_string(String::from_utf8(raw).ok()?).ok()?;
            let read = wire::read::<R>(&raw, with_pay, &"".into()).ok()?;
            Some(wire::Read { request: None, ..read })
        });
        let batch = Batch { images: images.collect(), ..Batch::default() };
        let mut news = self.news(vec![batch], None, report).await?;
        if !news.suspects.is_empty() {
            news.suspects.sort_by_key(Suspect::id);
            let refused = self.refused_alone(&news.suspects, |_| false, report).await?;
            news.leave_out(&refused);
        }
        if news.is_nothing() {
            return Ok(());
        }
        match self.try_commit(&news, report).await {
            Err(error) if error.is_refusal() => Ok(()),
            done => done,
        }
    }
}
