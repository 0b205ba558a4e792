//! Public Corefiles with directives that are not served.

/// A Corefile, and the lines and names of its directives that are not served.
pub struct Refused {
    pub name: &'static str,
    pub directives: &'static [(usize, &'static str)],
    pub text: &'static str,
}

/// Shapes that must be refused, naming what is not served.
pub const NOT_SERVED: &[Refused] = &[Refused {
    name: "kubespray with rewritten zones, kops with IPv6 only",
    directives: &[(4, "acl")],
    text: ".:53 {
    rewrite name suffix .old .new
    dns64 64:ff9b::/96
    acl {
        block net 10.0.0.0/8
    }
    forward . 10.0.0.1
    # shuffled
    loadbalance round_robin
}
",
}];
