CREATE TABLE egress_members (
    egress TEXT NOT NULL,
    member TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (egress, member)
) {clustered};
