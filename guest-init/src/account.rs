//! Users and groups, from the root's own `/etc/passwd` and `/etc/group`.

use std::fs;

/// Who a program runs as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Finds the account for `user[:group]`, names or numbers; root for an empty text.
pub(crate) fn find(user: &str) -> Result<Account, String> {
    // A root without these files still has numbers.
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    resolve(user, &passwd, &group)
}

fn resolve(spec: &str, passwd: &str, group: &str) -> Result<Account, String> {
    let (user, wanted_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 6 && (fields[0] == user || fields[2] == user));
    let (name, uid, gid, home) = match entry {
        Some(fields) => (
            fields[0],
            fields[2].parse().map_err(|_| format!("/etc/passwd: bad uid of {user}"))?,
            fields[3].parse().map_err(|_| format!("/etc/passwd: bad gid of {user}"))?,
            fields[5],
        ),
        None => match user.parse() {
            Ok(0) => ("root", 0, 0, "/root"),
            Ok(uid) => ("", uid, 0, "/"),
            Err(_) => return Err(format!("no user {user} in the root's /etc/passwd")),
        },
    };
    let (gid, groups) = match wanted_group {
        Some(wanted) => (find_group(wanted, group)?, Vec::new()),
        None => (gid, memberships(name, group)),
    };
    Ok(Account { uid, gid, groups, home: home.to_owned() })
}

fn group_lines(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

fn find_group(wanted: &str, group: &str) -> Result<u32, String> {
    group_lines(group)
        .find(|(name, ..)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .or_else(|| wanted.parse().ok())
        .ok_or_else(|| format!("no group {wanted} in the root's /etc/group"))
}

fn memberships(user: &str, group: &str) -> Vec<u32> {
    group_lines(group)
        .filter(|(.., members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:Ann:/home/ann:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\naudio:x:29:bob,ann\nvideo:x:44:bob\n";

    fn account(uid: u32, gid: u32, groups: &[u32], home: &str) -> Result<Account, String> {
        Ok(Account { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
    }

    #[test]
    fn names_and_numbers() {
        let find = |spec| resolve(spec, PASSWD, GROUP);
        assert_eq!(find(""), account(0, 0, &[], "/root"));
        assert_eq!(find("ann"), account(1000, 100, &[29], "/home/ann"));
        assert_eq!(find("1000"), account(1000, 100, &[29], "/home/ann"));
        assert_eq!(find("ann:video"), account(1000, 44, &[], "/home/ann"));
        assert_eq!(find("77:88"), account(77, 88, &[], "/"));
        assert!(find("eve").is_err());
        assert!(find("ann:eve").is_err());
    }

    #[test]
    fn no_files() {
        assert_eq!(resolve("", "", ""), account(0, 0, &[], "/root"));
        assert_eq!(resolve("5", "", "junk\n::\n"), account(5, 0, &[], "/"));
    }
}
