//! The page that holds what the clock role knows of its sources, as text: for the operator's eyes,
//! so nobody needs it fast. The clock role writes it, the supervisor reads it when it is asked.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::{Reader, Writer};
use crate::clock::account::Account;

/// Words of the text: four times what an account has come to.
const TEXT_WORDS: usize = 1023;
/// In front of the text, its length in bytes.
const WORDS: usize = 1 + TEXT_WORDS;

/// Changes with the layout.
const LAYOUT: u64 = u64::from_be_bytes(*b"tb:acc:1");

/// The writing end.
#[derive(Debug)]
pub struct AccountPage {
    page: Writer<WORDS>,
}

impl AccountPage {
    /// A new page without an account.
    pub fn create() -> io::Result<Self> {
        Ok(Self { page: Writer::create_for_roles("timeball-account", LAYOUT)? })
    }

    /// Takes a page over; fails for any other file.
    pub fn attach(file: OwnedFd) -> io::Result<Self> {
        Ok(Self { page: Writer::attach(file, LAYOUT)? })
    }

    /// Gives readers this account. One that is too long is left out: the last one stays.
    pub fn publish(&mut self, account: &Account) {
        let text = serde_json::to_vec(account).unwrap_or_default();
        if text.is_empty() || text.len() > 8 * TEXT_WORDS {
            return;
        }
        let mut words = Box::new([0; WORDS]);
        words[0] = text.len() as u64;
        for (word, bytes) in words[1..].iter_mut().zip(text.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(whole);
        }
        self.page.write(&words);
    }

    /// The account that was published last, if there is one and it makes sense: its writer is a
    /// role.
    pub fn latest(&self) -> Option<Account> {
        let mut page = Reader::<WORDS>::open(self.file(), LAYOUT).ok()?;
        let words = page.news()?;
        let bytes = usize::try_from(words[0]).ok()?;
        let text: Vec<u8> = words[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
        serde_json::from_slice(text.get(..bytes)?).ok()
    }

    /// The page, for handing over.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.page.file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::account::Asked;
    use crate::clock::record::SourceState;
    use crate::clock::source::Source;

    #[test]
    fn what_is_published_is_read_and_what_is_too_long_is_not() {
        let page = AccountPage::create().expect("made");
        assert_eq!(page.latest(), None);
        let file = page.file().try_clone_to_owned().expect("a descriptor");
        let mut role = AccountPage::attach(file).expect("mapped");
        let account = Account {
            source: Source::Kernel,
            state: SourceState::Silent,
            why: "it does not answer — at all".to_owned(),
            chronyd: None,
            smoothing: None,
            ntp: Some(Asked::new("127.0.0.1:123".to_owned())),
            kernel: None,
            leap_file: None,
            logs: None,
            hardware: Vec::new(),
        };
        role.publish(&account);
        assert_eq!(page.latest().as_ref(), Some(&account));
        role.publish(&Account { why: "x".repeat(8 * WORDS), ..account.clone() });
        assert_eq!(page.latest(), Some(account));
    }

    #[test]
    fn a_page_that_makes_no_sense_is_no_account() {
        let mut page = AccountPage::create().expect("made");
        for bytes in [0, 1, u64::MAX] {
            let mut words = [0x7b7b_7b7b; WORDS];
            words[0] = bytes;
            page.page.write(&words);
            assert_eq!(page.latest(), None);
        }
    }
}
