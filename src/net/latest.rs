//! A value that one thread replaces while others use it, without a lock and without waiting.
//!
//! Each version knows the one that came after it, once there is one. A follower holds the version
//! that it knows, so looking for news is one load, and goes on to the last one when there is any.
//! Whoever is the last to leave a version frees it.

use std::sync::{Arc, OnceLock};

/// The end that replaces the value.
#[derive(Debug)]
pub struct Publisher<T>(Arc<Version<T>>);

/// An end that uses it.
#[derive(Debug)]
pub struct Follower<T>(Arc<Version<T>>);

#[derive(Debug)]
struct Version<T> {
    value: T,
    next: OnceLock<Arc<Version<T>>>,
}

impl<T> Version<T> {
    fn new(value: T) -> Arc<Self> {
        Arc::new(Self { value, next: OnceLock::new() })
    }
}

impl<T> Publisher<T> {
    /// A value to begin with.
    pub fn new(value: T) -> Self {
        Self(Version::new(value))
    }

    /// Whoever follows has this value from its next look on.
    pub fn publish(&mut self, value: T) {
        let version = Version::new(value);
        let is_first = self.0.next.set(Arc::clone(&version)).is_ok();
        debug_assert!(is_first, "a version has one publisher");
        self.0 = version;
    }

    /// One more follower.
    pub fn follower(&self) -> Follower<T> {
        Follower(Arc::clone(&self.0))
    }
}

impl<T> Follower<T> {
    /// The value of the last look.
    pub fn value(&self) -> &T {
        &self.0.value
    }

    /// The value, if it was replaced since the last look.
    #[inline]
    pub fn news(&mut self) -> Option<&T> {
        self.0.next.get()?;
        self.catch_up();
        Some(self.value())
    }

    #[cold]
    fn catch_up(&mut self) {
        while let Some(next) = self.0.next.get() {
            self.0 = Arc::clone(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_the_last_value_once() {
        let mut publisher = Publisher::new(1);
        let mut follower = publisher.follower();
        assert_eq!((*follower.value(), follower.news()), (1, None));
        publisher.publish(2);
        publisher.publish(3);
        assert_eq!(follower.news(), Some(&3));
        assert_eq!(follower.value(), &3);
        assert_eq!(follower.news(), None);
        assert_eq!(publisher.follower().news(), None, "it begins with the last value");
    }

    #[test]
    fn a_version_is_freed_by_whoever_leaves_it_last() {
        let counted = Arc::new(());
        let mut publisher = Publisher::new(Arc::clone(&counted));
        let mut followers = [publisher.follower(), publisher.follower()];
        for _ in 0..10 {
            publisher.publish(Arc::clone(&counted));
        }
        assert_eq!(Arc::strong_count(&counted), 1 + 11, "they hold the first one and all after it");
        followers.iter_mut().for_each(|follower| assert!(follower.news().is_some()));
        assert_eq!(Arc::strong_count(&counted), 1 + 1);
    }

    #[test]
    fn threads_see_values_in_their_order_and_come_to_the_last_one() {
        let mut publisher = Publisher::new(0);
        let followers: Vec<_> = (0..3).map(|_| publisher.follower()).collect();
        std::thread::scope(|scope| {
            for mut follower in followers {
                scope.spawn(move || {
                    let mut last = 0;
                    while last < 1000 {
                        if let Some(&value) = follower.news() {
                            assert!(value > last);
                            last = value;
                        }
                        std::thread::yield_now();
                    }
                });
            }
            (1..=1000).for_each(|value| publisher.publish(value));
        });
    }
}
