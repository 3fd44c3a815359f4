//! Records that PostgreSQL refuses: is it the record, or the database?
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

/// So many refused records are tried again at each poll. Where there are more, it is left to chance which.
const MOST_RETRIED: i64 = 100;

/// Refused records by id, each with the reason.
pub(super) type Refused = HashMap<i64, String>;

impl Writer<'_> {
    /// Moves what PostgreSQL refuses from the news, of a page of so many records, to its rejections. Returns how many records
    /// that were.
    ///
    /// # Errors
    /// If PostgreSQL refuses too many of them, or a row that it took before: the database is in trouble then.
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
            // Of two states the later one counts.
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

    /// Writes the suspects with their events, and takes it back.
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
        page.emit(&events).await
    }

    /// Those of the suspects, which are sorted by id, that PostgreSQL refuses even alone. They are found by halving, until
    /// they are too many.
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

    /// Whether PostgreSQL takes a row of this table that it took before, both as a change and as a new row. `None` where the
    /// mirror has no row but the suspects'.
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
                // Of the row that it repeats: somebody's own unique index.
                Err(error) if is_new && error.is_unique_violation() => {}
                Err(error) if error.is_refusal() => return Ok(Some(false)),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(true))
    }

    /// Stores those of the refused records that PostgreSQL takes now, as they are on file: a newer state that was stored would
    /// have removed them from there.
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
