Feature: Verification
  Bytes in VRAM are digested anew before every use. A change is found and located, and nothing executes.

  @VER-1
  Scenario: Untouched weights verify
    Given the shard llama is sealed
    When I verify llama
    Then the digest is that of llama
    And the manager is ready

  @VER-4 @VER-5 @ERR-4
  Scenario Outline: One flipped bit stops everything before the work runs
    Given the shard llama is sealed
    And the shard gemma is sealed
    When bit <bit> of byte <byte> of llama flips in VRAM
    And I execute llama
    Then it is an integrity failure of llama that covers byte <byte>
    And the work did not run
    And llama is quarantined as evidence
    And the manager has stopped for integrity
    When I execute gemma
    Then it fails with MANAGER_STOPPED
    And the work did not run

    Examples:
      | bit | byte  |
      | 0   | 0     |
      | 7   | 1023  |
      | 4   | 32768 |
      | 6   | 69999 |

  @VER-1 @VER-4 @VER-5
  Scenario Outline: However use begins, it begins only over the bytes that were sealed
    Given a manager that quarantines only the shard
    And the shard llama is sealed
    And the shard gemma is sealed
    When <use>
    Then it succeeds
    When bit 3 of byte 69999 of llama flips in VRAM
    And <use>
    Then it is an integrity failure of llama that covers byte 69999
    And llama is quarantined as evidence
    And gemma still verifies

    Examples:
      | use                                  |
      | I execute llama                      |
      # The whole image is checked, not what is read.
      | I read 10 bytes at 0 of llama        |
      | I execute the batch gemma, llama     |
      | I verify llama                       |
      | I seal llama anew                    |

  @VER-5
  Scenario: By choice only the changed shard is out of service
    Given a manager that quarantines only the shard
    And the shard llama is sealed
    And the shard gemma is sealed
    When bit 3 of byte 40000 of llama flips in VRAM
    And I execute llama
    Then it is an integrity failure of llama that covers byte 40000
    And the manager is ready
    When I execute gemma
    Then the work read the weights of gemma
    When I release llama
    And I seal llama
    And I execute llama
    Then the work read the weights of llama

  @VER-5
  Scenario: A quarantined shard is not healed by flipping the bit back
    Given a manager that quarantines only the shard
    And the shard llama is sealed
    When bit 3 of byte 40000 of llama flips in VRAM
    And I verify llama
    Then it is an integrity failure of llama that covers byte 40000
    When bit 3 of byte 40000 of llama flips in VRAM
    And I execute llama
    Then it is an integrity failure of llama that covers byte 40000
    And the work did not run

  @VER-5
  Scenario: A stopped manager still gives evidence and releases
    Given the shard llama is sealed
    And the shard gemma is sealed
    When bit 3 of byte 40000 of llama flips in VRAM
    And I verify llama
    Then the manager has stopped for integrity
    And it fails with SEAL_VERIFICATION_FAILED
    When I take the digest of llama in VRAM
    Then the digest is not that of llama
    And gemma still verifies
    When I release llama
    Then it succeeds

  @VER-11 @faults
  Scenario Outline: A digest that does not prove itself is not believed
    Given the shard llama is sealed
    And the device will <misbehave>
    When I execute llama
    Then it fails with <code>
    And the work did not run
    And the manager has stopped for <reason>

    Examples:
      | misbehave                 | code                     | reason              |
      | skip a digest             | DEVICE_UNTRUSTED         | an-untrusted-device |
      | digest half and say so    | DEVICE_UNTRUSTED         | an-untrusted-device |
      | repeat an old digest      | DEVICE_UNTRUSTED         | an-untrusted-device |
      | digest half and claim all | SEAL_VERIFICATION_FAILED | integrity           |

  @VER-1 @ERR-2 @ERR-3 @ERR-4 @faults
  Scenario Outline: A check that the device could not make is no integrity failure, and the next one serves
    Given the shard llama is sealed
    And the device will fail a <call>
    When I execute llama
    Then it fails with CUDA_ERROR
    And the message contains "999"
    And the work did not run
    And it is the device's failure and no integrity failure
    And trying again may help
    When I execute llama
    Then the work read the weights of llama

    Examples:
      | call     |
      | fill     |
      | digest   |
      | readback |
      | wait     |

  @CON-1 @VER-5 @AUD-1
  Scenario: A change is seen by all threads that check at once, and stops the manager once
    Given the shard llama is sealed
    And the shard gemma is sealed
    When 8 threads verify llama at once
    Then all of them succeed
    When bit 3 of byte 40000 of llama flips in VRAM
    And 8 threads verify llama at once
    Then all of them fail with SEAL_VERIFICATION_FAILED
    And the trail has 1 time shard_quarantined
    And the trail has 1 time manager_stopped
    And gemma still verifies
