Feature: Seals
  A seal is a capability that leaves the process. What comes back is believed only if this manager signed it, in time and whole.

  @SEAL-2 @SEAL-3 @SEAL-4 @ERR-4
  Scenario Outline: A seal with a flipped bit is refused and stops nobody
    Given the shard llama is sealed
    When the seal of llama comes back as it is
    And I execute llama
    Then the work read the weights of llama
    When the seal of llama comes back with bit <bit> of byte <from_end> from the end flipped
    And I execute llama
    Then the seal is refused as forged
    And the trail says refused as forged
    And the manager is ready

    # The last 32 bytes are the tag, the 8 before it the time, the digest ends 42 before the end.
    Examples:
      | bit | from_end |
      | 0   | 1        |
      | 7   | 32       |
      | 3   | 40       |
      | 5   | 43       |

  @SEAL-3 @SEAL-4
  Scenario Outline: A seal that is not whole is malformed
    Given the shard llama is sealed
    When the seal of llama comes back <how>
    Then the seal is refused as malformed
    And the manager is ready

    Examples:
      | how                 |
      | one byte short      |
      | with one byte added |

  @SEAL-4 @KEY-2
  Scenario Outline: A seal serves its own manager and no other
    Given a manager
    And a second manager <kind>
    And the shard llama is sealed
    When I execute llama on the second manager
    Then the seal is refused as <claim>
    When I release llama on the second manager
    Then the seal is refused as <claim>
    When I execute llama
    Then the work read the weights of llama

    Examples:
      | kind               | claim               |
      | on the same device | claims_other_epoch  |
      | of another secret  | claims_other_epoch  |
      | of another worker  | claims_other_worker |

    @RES-8 @two-devices
    Examples:
      | kind              | claim               |
      | on another device | claims_other_device |

  @SEAL-4 @SCR-4
  Scenario: A seal does not survive its shard, also when name and slot are used again
    Given the shard llama is sealed
    When I keep the seal of llama as old
    And I release llama
    And I seal llama
    And I execute old
    Then it fails with STALE_HANDLE
    And the work did not run
    And the trail says refused as stale
    And llama still verifies

  @SEAL-7
  Scenario: A seal that is too old begins nothing, but is still evidence
    Given the shard llama is sealed for 300 ms
    When I execute llama
    Then the work read the weights of llama
    When I wait 350 ms
    And I execute llama
    Then the seal is refused as expired
    And the trail says refused as expired
    And llama still verifies
    When I release llama
    Then used VRAM is zero

  @SEAL-7 @SEAL-4
  Scenario: Sealing anew makes the age fresh and the old seal stale
    Given the shard llama is sealed for 1000 ms
    When I wait 1050 ms
    And I keep the seal of llama as old
    And I seal llama anew
    Then the trail has, in this order: seal_verified, vram_sealed
    When I execute llama
    Then the work read the weights of llama
    When I execute old
    Then it fails with STALE_HANDLE

  @SEAL-8 @RES-8 @two-devices
  Scenario: A whole model on two devices is whole
    Given a manager
    And a second manager on another device
    And llama is sealed as part 0 of 2 of the set chat of version 3
    And gemma is sealed as part 1 of 2 of the set chat of version 3 on the second manager
    When I check the set of llama, gemma
    Then it succeeds

  @SEAL-8
  Scenario Outline: A model with a part missing, twice, out of order, foreign or of another version is refused
    Given llama is sealed as part 0 of 2 of the set chat of version 3
    And gemma is sealed as part 1 of 2 of the set chat of version 3
    And foreign is sealed as part 1 of 2 of the set other of version 3
    And newer is sealed as part 1 of 2 of the set chat of version 4
    When I check the set of llama, gemma
    Then it succeeds
    When I check the set of <parts>
    Then it fails with INVALID_PARAMS
    And the message contains "<why>"

    Examples:
      | parts               | why                                           |
      | llama               | is incomplete                                 |
      | llama, llama        | has part 0 twice                              |
      | gemma, llama        | is out of order                               |
      | llama, foreign      | a stranger: shard foreign is of another set   |
      | llama, newer        | shard newer is of another model or version    |
