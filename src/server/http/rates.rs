//! How often one key may ask.
//!
//! Owns: the buckets, the headers `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
//! Must not know: what is asked for.
//! Invariant: a request that is refused costs nothing, and the answer says when the next one is welcome.
//!
//! Each process counts for itself: behind a balancer over n servers, a key may ask up to n times as often.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::{DefaultKeyedRateLimiter, Quota};

use super::problem::{self, Problem};
use crate::config;
use crate::domain::{ApiKey, KeyId};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Every request.
    Requests,
    /// Requests for a new job.
    Jobs,
}

/// The buckets of one policy: one a key, and one for all who need none.
#[derive(Debug)]
struct Buckets {
    name: &'static str,
    most: NonZeroU32,
    window: Duration,
    limiter: DefaultKeyedRateLimiter<Option<KeyId>, StateInformationMiddleware>,
}

impl Buckets {
    fn new(name: &'static str, most: NonZeroU32, window: Duration, quota: Quota) -> Self {
        let limiter = DefaultKeyedRateLimiter::keyed(quota).with_middleware();
        Self {
            name,
            most,
            window,
            limiter,
        }
    }

    fn policy(&self) -> String {
        format!("\"{}\";q={};w={}", self.name, self.most, self.window.as_secs())
    }

    /// What is left, and seconds until all of it is there again.
    fn limit(&self, left: u32) -> String {
        let spent = self.most.get().saturating_sub(left);
        let again = self.window.as_secs_f64() * f64::from(spent) / f64::from(self.most.get());
        format!("\"{}\";r={left};t={}", self.name, again.ceil() as u64)
    }

    fn refusal(&self, wait: Duration) -> Problem {
        let seconds = (wait.as_secs_f64().ceil() as u64).max(1);
        let detail = format!(
            "a key has {} {} in {} s; the next is welcome in {seconds} s",
            self.most,
            self.name,
            self.window.as_secs()
        );
        Problem::new(problem::RATE_LIMITED, detail).with_header(header::RETRY_AFTER, &seconds.to_string())
    }
}

/// All policies that are in effect.
#[derive(Debug)]
pub struct Rates {
    requests: Option<Buckets>,
    jobs: Option<Buckets>,
}

impl Rates {
    /// The policies of a configuration.
    pub fn new(rates: config::Rates) -> Self {
        let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
        let requests = |most| Buckets::new("requests", most, minute, Quota::per_minute(most));
        let jobs = |most| Buckets::new("jobs", most, hour, Quota::per_hour(most));
        Self {
            requests: rates.requests.map(requests),
            jobs: rates.jobs.map(jobs),
        }
    }

    /// Counts a request; refuses one too many. What the answer should say of it is told.
    pub fn admit(&self, policy: Policy, key: Option<&ApiKey>, told: Option<&Told>) -> Result<(), Problem> {
        let buckets = match policy {
            Policy::Requests => &self.requests,
            Policy::Jobs => &self.jobs,
        };
        let Some(buckets) = buckets else {
            return Ok(());
        };
        let (left, result) = match buckets.limiter.check_key(&key.map(|key| key.id)) {
            Ok(state) => (state.remaining_burst_capacity(), Ok(())),
            Err(not_until) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                (0, Err(buckets.refusal(wait)))
            }
        };
        if let Some(told) = told {
            told.say(buckets.policy(), buckets.limit(left));
        }
        result
    }
}

/// What an answer will say of the policies that its request met.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<Vec<(String, String)>>>);

impl Told {
    /// Listens to what is told of a request.
    pub fn of(request: &mut Request) -> Self {
        let told = Self::default();
        request.extensions_mut().insert(told.clone());
        told
    }

    /// Puts what was told into the answer.
    pub fn put(&self, response: &mut Response) {
        let (policies, limits): (Vec<String>, Vec<String>) = self.lock().drain(..).unzip();
        if policies.is_empty() {
            return;
        }
        for (name, values) in [("ratelimit-policy", policies), ("ratelimit", limits)] {
            if let Ok(value) = HeaderValue::from_str(&values.join(", ")) {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static(name), value);
            }
        }
    }

    fn say(&self, policy: String, limit: String) {
        self.lock().push((policy, limit));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(String, String)>> {
        // Whole pairs only: the list is sound whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
