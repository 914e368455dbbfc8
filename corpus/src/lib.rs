//! Inputs, mutation, scheduling, crashes and statistics of a campaign, on LibAFL. Never knows what a VM is.
#![forbid(unsafe_code)]
