Feature: Secrets and keys
  A worker's secret comes from where it is guarded, and shows nowhere. Each manager has a key of its own.

  @KEY-1
  Scenario Outline: A secret of 32 to 4096 bytes from memory serves
    Given weights llama of 5000 bytes
    When I take a secret of <bytes> bytes from memory
    Then it succeeds
    When I build a manager of that secret
    And I seal part-0 from llama
    And I execute part-0
    Then the work ran
    And it read the weights llama

    Examples:
      | bytes |
      | 32    |
      | 33    |
      | 4096  |

  @KEY-1 @ERR-2
  Scenario Outline: A secret of another length is refused
    When I take a secret of <bytes> bytes from memory
    Then it fails with CONFIG_ERROR
    And the message contains "worker secret is <bytes> bytes long; 32 to 4096 are allowed"
    And trying again is pointless
    And the message shows neither the secret nor its place

    Examples:
      | bytes |
      | 0     |
      | 31    |
      | 4097  |

  @KEY-1
  Scenario Outline: A guarded file gives a secret
    Given weights llama of 5000 bytes
    And a secret file of <bytes> bytes with the permissions <permissions>
    When I take the secret from <where>
    Then it succeeds
    When I build a manager of that secret
    And I seal part-0 from llama
    And I execute part-0
    Then the work ran
    And it read the weights llama

    Examples:
      | bytes | permissions | where               |
      | 32    | 600         | the file            |
      | 4096  | 400         | the file            |
      | 64    | 600         | the file as mounted |
      | 64    | 440         | the file as mounted |
      | 64    | 444         | a link as mounted   |

  @KEY-1 @KEY-3 @ERR-2
  Scenario Outline: A file that is guarded loosely, or holds no secret, is refused without showing what or where it is
    Given a secret file of <bytes> bytes with the permissions <permissions>
    When I take the secret from <where>
    Then it fails with CONFIG_ERROR
    And the message contains "worker secret <problem>"
    And trying again is pointless
    And the message shows neither the secret nor its place

    Examples:
      | bytes | permissions | where                 | problem                                  |
      | 64    | 640         | the file              | can be used by group or others           |
      | 64    | 604         | the file              | can be used by group or others           |
      | 64    | 620         | the file as mounted   | can be written by group or others        |
      | 64    | 602         | a link as mounted     | can be written by group or others        |
      | 64    | 600         | a link                | is not a regular file                    |
      | 64    | 600         | the folder            | is not a regular file                    |
      | 64    | 600         | the folder as mounted | is not a regular file                    |
      | 64    | 600         | nowhere               | cannot be read                           |
      | 64    | 600         | nowhere as mounted    | cannot be read                           |
      | 31    | 600         | the file              | is 31 bytes long; 32 to 4096 are allowed |
      | 31    | 444         | the file as mounted   | is 31 bytes long; 32 to 4096 are allowed |
      | 4097  | 600         | the file              | is longer than 4096 bytes                |

  @KEY-1
  Scenario: A service takes the credential that it was given
    Given a secret file of 64 bytes with the permissions 440
    When a process that was given its folder takes the credential secret.key
    Then it succeeds

  @KEY-1 @KEY-3 @ERR-2
  Scenario Outline: What is no credential of a service is refused without showing where it was looked for
    Given a secret file of 64 bytes with the permissions <permissions>
    When a process that was given <what> takes the credential <name>
    Then the process says that the worker secret <problem>

    Examples:
      | permissions | what       | name          | problem                                                       |
      | 440         | its folder | other.key     | cannot be read                                                |
      | 440         | its folder | ../secret.key | has a credential name that cannot be                                |
      | 440         | its folder | .secret.key   | has a credential name that cannot be                                |
      | 460         | its folder | secret.key    | can be written by group or others                             |
      | 440         | no folder  | secret.key    | is a systemd credential, but CREDENTIALS_DIRECTORY is not set |

  @KEY-1
  Scenario: A drawn secret serves, but not where a stored one is wanted
    Given weights llama of 5000 bytes
    And a secret file of 64 bytes with the permissions 600
    When I draw a secret at random
    And I build a manager whose policy wants a stored secret
    Then it fails with POLICY_VIOLATION
    And the message contains "stored_secret"
    When I go on
    And I take the secret from the file
    And I build a manager whose policy wants a stored secret
    Then it succeeds
    When I draw a secret at random
    And I build a manager of that secret
    And I seal part-0 from llama
    And I execute part-0
    Then the work ran

  @KEY-2 @SEAL-4
  Scenario: Two managers of one secret on one device serve their own seals and refuse the other's
    Given a manager
    And a second manager on the same device
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama on the second manager
    When I execute part-1
    Then the seal is refused as claims_other_epoch
    And the trail says refused as claims_other_epoch
    When I go on
    And I release part-1
    Then the seal is refused as claims_other_epoch
    When I go on
    And I release part-0 on the second manager
    Then the seal is refused as claims_other_epoch
    And used VRAM is as before
    And the manager is ready
    And the second manager is ready
    When I go on
    And I execute part-0
    Then the work ran
    When I execute part-1 on the second manager
    Then the work ran

  @KEY-2 @SEAL-4
  Scenario: A seal dies with its manager, though the secret lives on
    Given a manager
    And a second manager on the same device
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama on the second manager
    When the manager is dropped
    And I present part-0 to the second manager
    Then the seal is refused as claims_other_epoch
    When I go on
    And I execute part-1 on the second manager
    Then the work ran

  @KEY-2 @SEAL-2 @SEAL-4
  Scenario Outline: No other manager's tag signs for this one
    Given a manager
    And a second manager <kind>
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama on the second manager
    When the seal part-0 carries the tag of part-1
    And I execute part-0
    Then the seal is refused as forged
    And the trail says refused as forged
    And the manager is ready
    When I go on
    And I present part-0 to the second manager
    Then the seal is refused as <claim>
    And the second manager is ready
    When I go on
    And the seal part-0 carries its own tag again
    And I execute part-0
    Then the work ran

    Examples:
      | kind               | claim               |
      | of another secret  | claims_other_epoch  |
      | of another worker  | claims_other_worker |
      | on the same device | claims_other_epoch  |

    @RES-8 @two-devices
    Examples:
      | kind              | claim               |
      | on another device | claims_other_device |

  @KEY-2 @SEAL-2
  Scenario: The tag of one shard does not sign for another of the same manager
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When the seal part-0 carries the tag of part-1
    And I execute part-0
    Then the seal is refused as forged
    And part-1 still verifies
    When I go on
    And the seal part-0 carries its own tag again
    And I execute part-0
    Then the work ran

  @KEY-3 @AUD-6
  Scenario: A whole life shows neither secret nor key nor tag
    Given weights llama of 70000 bytes
    And weights other of 70000 bytes
    When I take a secret of 64 bytes from memory
    And I build a manager of that secret
    And I seal part-0 from llama
    And I seal part-1 from other expecting the digest of llama
    Then it fails with DIGEST_MISMATCH
    When I go on
    And I seal part-1 from llama
    And I execute part-0
    And I reseal part-1
    And the seal part-0 carries the tag of part-1
    And I execute part-0
    Then the seal is refused as forged
    When I go on
    And the seal part-0 carries its own tag again
    And I take a guard of part-0
    And I release part-0
    Then it fails with SHARD_BUSY
    And nothing that was said or can be shown holds the secret, a key or a tag
    When I go on
    And the guard finishes
    And bit 3 of byte 40000 of part-1 flips in VRAM
    And I execute part-1
    Then it is an integrity failure of part-1 that covers byte 40000
    When I go on
    And I execute part-0
    Then it fails with MANAGER_STOPPED
    When I go on
    And I release part-0
    And I release part-0
    Then it fails with STALE_HANDLE
    When I go on
    And I shut down within 1000 ms
    Then nothing that was said or can be shown holds the secret, a key or a tag
