//! What the verbs that only look need: `ps`, `ls`, `logs`, and finding one container of a service.

pub mod logs;
pub mod ls;
pub mod ps;
