Feature: Sets of parts
  A model of several shards is whole, in order and of one version, or it is refused. The bytes are each part's own check.

  @SEAL-8
  Scenario: A whole set on one device is whole
    Given a manager
    And weights llama of 5000 bytes
    And part-0 is sealed from llama as part 0 of 3 of the set llama-8b
    And part-1 is sealed from llama as part 1 of 3 of the set llama-8b
    And part-2 is sealed from llama as part 2 of 3 of the set llama-8b
    When I check the set of part-0, part-1, part-2
    Then it succeeds

  @SEAL-8
  Scenario Outline: A set with a part missing, twice or out of order is refused
    Given a manager
    And weights llama of 5000 bytes
    And part-0 is sealed from llama as part 0 of 3 of the set llama-8b
    And part-1 is sealed from llama as part 1 of 3 of the set llama-8b
    And part-2 is sealed from llama as part 2 of 3 of the set llama-8b
    When I check the set of <parts>
    Then the set is refused because it "<why>"
    And the manager is ready
    And part-0 still verifies

    Examples:
      | parts                          | why             |
      | nothing                        | is empty        |
      | part-0, part-1                 | is incomplete   |
      | part-1, part-2                 | is out of order |
      | part-0, part-2, part-1         | is out of order |
      | part-0, part-0, part-2         | has part 0 twice |
      | part-0, part-1, part-2, part-2 | has part 2 twice |

  @SEAL-8 @RES-8 @two-devices
  Scenario: A set spans devices
    Given a manager
    And a second manager on another device
    And weights llama of 5000 bytes
    And part-0 is sealed from llama as part 0 of 2 of the set llama-8b
    And part-1 is sealed from llama as part 1 of 2 of the set llama-8b on the second manager
    When I check the set of part-0, part-1
    Then it succeeds

  @SEAL-8 @SEAL-4 @RES-8 @two-devices
  Scenario: A part counts only with the manager that holds it
    Given a manager
    And a second manager on another device
    And weights llama of 5000 bytes
    And part-0 is sealed from llama as part 0 of 2 of the set llama-8b
    And part-1 is sealed from llama as part 1 of 2 of the set llama-8b on the second manager
    When I check as if all were on the first manager the set part-0, part-1
    Then the seal is refused as claims_other_device
    And the manager is ready

  @SEAL-8
  Scenario: Parts of one model and version are a set
    Given a manager
    And weights llama of 5000 bytes
    And part-0 is sealed from llama as part 0 of 2 of the set llama-8b of the model llama-8b.r3
    And part-1 is sealed from llama as part 1 of 2 of the set llama-8b of the model llama-8b.r3
    When I check the set of part-0, part-1
    Then it succeeds

  @SEAL-8
  Scenario Outline: Parts that do not belong together are refused
    Given a manager
    And weights llama of 5000 bytes
    And part-0 is sealed from llama as part 0 of 2 of the set llama-8b of the model llama-8b.r3
    And foreign is sealed from llama as part 1 of 2 of the set other of the model llama-8b.r3
    And newer is sealed from llama as part 1 of 2 of the set llama-8b of the model llama-8b.r4
    And nameless is sealed from llama as part 1 of 2 of the set llama-8b
    And third is sealed from llama as part 1 of 3 of the set llama-8b of the model llama-8b.r3
    And the shard alone is sealed from llama
    When I check the set of part-0, <other>
    Then the set is refused because it "<why>"

    Examples:
      | other    | why                                                     |
      | foreign  | has a stranger: shard foreign is of another set         |
      | newer    | is mixed: shard newer is of another model or version    |
      | nameless | is mixed: shard nameless is of another model or version |
      | third    | is mixed: shard third says 3 parts                      |
      | alone    | has a stranger: shard alone was sealed alone            |

  @SEAL-8 @SEAL-4
  Scenario: A set with a released part is stale until the part is sealed again
    Given a manager
    And weights llama of 5000 bytes
    And part-0 is sealed from llama as part 0 of 2 of the set llama-8b
    And part-1 is sealed from llama as part 1 of 2 of the set llama-8b
    When I release part-1
    And I check the set of part-0, part-1
    Then it fails with STALE_HANDLE
    When I go on
    And I seal part-1 from llama as part 1 of 2 of the set llama-8b
    And I check the set of part-0, part-1
    Then it succeeds

  @SEAL-8 @VAL-2
  Scenario Outline: A part beyond its set is not sealed
    Given a manager
    And weights llama of 5000 bytes
    When I seal part-0 from llama as part <index> of <count> of the set llama-8b
    Then it fails with INVALID_PARAMS
    And the message contains "part <index> of <count>"
    And nothing was sealed and nothing is left of it
    And part-0 can be sealed from llama after all

    Examples:
      | index | count |
      | 0     | 0     |
      | 1     | 1     |
      | 7     | 3     |

  @SEAL-8 @VER-5 @VER-7
  Scenario: A changed part is found by its own check, and no part of the set begins
    Given a manager that quarantines only the shard
    And weights llama of 5000 bytes
    And part-0 is sealed from llama as part 0 of 2 of the set llama-8b
    And part-1 is sealed from llama as part 1 of 2 of the set llama-8b
    When bit 3 of byte 4999 of part-1 flips in VRAM
    And I check the set of part-0, part-1
    Then it succeeds
    When I begin the batch part-0, part-1
    Then it is an integrity failure of part-1 that covers byte 4999
    And there is no guard
    When I go on
    And I begin the batch part-0
    Then it succeeds
