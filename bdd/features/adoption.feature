Feature: Adopted engine memory
  Memory that an engine allocated is sealed where it lies. Its owner is held until release, and given back on every failure.

  @RES-9 @DIG-3
  Scenario: An engine's memory is sealed and executed where it lies
    Given a manager
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 1, 3000, 1023, 976 bytes
    When I adopt the memory of candle as part-0
    Then it succeeds
    And the seal part-0 speaks of the memory of candle
    And adopted VRAM is 5000 bytes
    # What the manager allocated itself is the check space; padding is virtual.
    And the driver counts the same bytes as the ledger
    When I execute part-0
    Then the work ran
    And it read the memory of candle
    When I release part-0
    Then it succeeds
    And adopted VRAM is 0 bytes
    And used VRAM is zero

  @RES-9 @VAL-2
  Scenario Outline: Unusable regions are refused and the owner comes back
    Given a manager
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 4000, 1000 bytes
    When I adopt regions of candle that are <unusable>
    Then it fails with INVALID_PARAMS
    And the message contains "regions <problem>"
    And candle has its memory back, untouched
    And nothing was sealed and nothing is left of it
    When I go on
    And I adopt the memory of candle as part-0
    Then it succeeds

    Examples:
      | unusable                      | problem                                                  |
      | none                          | are none                                                 |
      | null                          | are unusable: number 0 is null                           |
      | empty                         | are unusable: number 1 is empty                          |
      | the same twice                | overlap: numbers 0 and 1                                 |
      | overlapping by one byte       | overlap: numbers 0 and 1                                 |
      | misaligned for their elements | are unusable: number 0 is misaligned                     |
      | not whole elements            | are unusable: number 0 is not a whole number of elements |
      | beyond the address space      | are unusable: number 1 wraps                             |

  @RES-9 @SEAL-9 @DIG-3
  Scenario: An engine's memory is what somebody vouched for
    Given a manager whose policy requires expected digests
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 4000, 1000 bytes
    When I adopt the memory of candle as part-0, to be wiped, expecting the digest of its image
    Then it succeeds
    And the seal part-0 says expected
    And part-0 still verifies

  @RES-9 @SEAL-1
  Scenario: An engine's memory that is not what somebody vouched for comes back unwiped
    Given a manager
    And weights llama of 5000 bytes
    And weights poisoned that differ from llama in bit 0 of byte 4999
    And an engine candle that holds poisoned in regions of 5000 bytes
    When I adopt the memory of candle as part-0, to be wiped, expecting the digest of llama
    Then it fails with DIGEST_MISMATCH
    And the error tells the expected digest from the actual one
    And candle has its memory back, untouched
    And nothing was sealed and nothing is left of it
    And the manager is ready

  @RES-9 @VER-4 @VER-5
  Scenario: An engine that writes to its memory is found, and its owner held while there is evidence
    Given a manager that quarantines only the shard
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 2048, 2952 bytes
    When I adopt the memory of candle as part-0
    And candle lets go of its handle
    And candle changes byte 4999 of its memory
    And I execute part-0
    # The regions are whole blocks, so nothing is padded and the byte keeps its number.
    Then it is an integrity failure of part-0 that covers byte 4999
    And the work did not run
    And the memory of candle is still held
    When I go on
    And I release part-0
    Then it succeeds
    And the memory of candle is let go

  @RES-9 @VER-4
  Scenario: What lies beside an engine's regions is the engine's own
    Given a manager
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 1, 3000, 1999 bytes
    When I adopt the memory of candle as part-0
    And candle changes the bytes beside its regions
    And I execute part-0
    Then the work ran
    And it read the memory of candle

  @RES-9
  Scenario: The owner is taken back after release and not before
    Given a manager
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 5000 bytes
    When I adopt the memory of candle as part-0
    Then candle cannot take its memory back
    When I take a guard of part-0
    And I release part-0
    Then it fails with SHARD_BUSY
    And candle cannot take its memory back
    When I go on
    And the guard finishes
    And I release part-0
    Then candle can take its memory back
    And the memory of candle is untouched

  @RES-9 @SCR-1
  Scenario: An engine's memory is wiped on release where its owner allows that
    Given a manager
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 1, 3000, 1999 bytes
    When I adopt the memory of candle as part-0, to be wiped
    And I release part-0
    Then it succeeds
    And the trail has, in this order: vram_wiped, vram_deallocated
    And exactly the regions of candle are zero
    And candle can take its memory back

  @RES-9 @SCR-3
  Scenario: An engine's memory is never wiped where its owner does not allow that
    Given a manager
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 1, 3000, 1999 bytes
    When I adopt the memory of candle as part-0
    And the manager is dropped
    Then the device has nothing left and freed nothing unwiped
    And the memory of candle is untouched
    And candle can take its memory back

  @RES-9 @SCR-2 @faults
  Scenario: An engine's memory that could not be wiped stays held
    Given a manager
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 4000, 1000 bytes
    When I adopt the memory of candle as part-0, to be wiped
    And the device will skip a fill
    And I release part-0
    Then it fails with WIPE_FAILED
    And its memory is quarantined as residue
    And candle cannot take its memory back
    When I go on
    And the manager is dropped
    Then exactly the regions of candle are zero
    And candle can take its memory back

  @RES-9
  Scenario: Memory under seal is not adopted again until it is released
    Given a manager
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 4000, 1000 bytes
    When I adopt the memory of candle as part-0
    And candle lets go of its handle
    And I adopt the memory of candle as part-1
    Then it fails with INVALID_PARAMS
    And the message contains "regions"
    And candle has its memory back, untouched
    And part-0 still verifies
    When I go on
    And I release part-0
    And I adopt the memory of candle as part-1
    Then it succeeds
    And part-1 still verifies

  @RES-9 @RES-2 @RES-6 @faults
  Scenario Outline: An adoption that may not be gives the memory back
    Given a manager
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 4000, 1000 bytes
    And the device will <trouble>
    When I adopt the memory of candle as part-0, to be wiped
    Then it fails with <code>
    And candle has its memory back, untouched
    And nothing was sealed and nothing is left of it
    And the manager is ready
    When I go on
    And I adopt the memory of candle as part-0, to be wiped
    Then it succeeds

    Examples:
      | trouble                     | code             |
      | say that memory is managed  | POLICY_VIOLATION |
      | answer residency with zeros | POLICY_VIOLATION |
      | say that no memory is free  | VRAM_OOM         |
      | fail a digest               | CUDA_ERROR       |

  @RES-9 @VER-5
  Scenario: A stopped manager adopts nothing
    Given a manager
    And weights llama of 5000 bytes
    And an engine candle that holds llama in regions of 5000 bytes
    When I shut down within 0 ms
    And I adopt the memory of candle as part-0, to be wiped
    Then it fails with MANAGER_STOPPED
    And candle has its memory back, untouched
