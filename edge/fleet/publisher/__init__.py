"""The publisher: deployments signed for groups of devices, and released to more and more of them.

`keys` finds signing keys, `repository` keeps the TUF metadata, `releases` builds and releases,
`rings` widens a release step by step while devices report how they fare.
"""
