//! Corefile, templates and resolv.conf, turned into the Config types of the other modules.
