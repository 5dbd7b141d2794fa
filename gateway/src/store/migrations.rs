//! The steps from an empty database to the present format, which is their number. A step has a script for each
//! database; both make the same tables.

/// A step to the next format.
pub(super) struct Step {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

macro_rules! steps {
    ($($file:literal),+ $(,)?) => {
        &[$(Step {
            sqlite: include_str!(concat!("../../migrations/sqlite/", $file)),
            postgres: include_str!(concat!("../../migrations/postgres/", $file)),
        }),+]
    };
}

/// All steps, in order.
pub(super) const STEPS: &[Step] = steps![
    "0001_store.sql",
    "0002_aggregates.sql",
    "0003_partners.sql",
    "0004_subscriptions.sql",
    "0005_claims.sql",
    "0006_reports.sql",
    "0007_gateways.sql",
    "0008_invitations.sql",
    "0009_audit.sql",
    "0010_erasure.sql",
    "0012_units.sql",
    "0013_timeline.sql",
    "0014_sums.sql",
    "0015_limits.sql",
    "0017_bundles.sql",
    "0018_backup.sql",
    "0016_compare.sql",
    "0019_erase.sql",
    "0020_renewed.sql",
];

/// The present format.
pub const KNOWN: i64 = STEPS.len() as i64;
